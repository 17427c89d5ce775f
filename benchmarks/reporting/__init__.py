"""What a report is made of: its metrics, its tables, and the page they are drawn on."""
