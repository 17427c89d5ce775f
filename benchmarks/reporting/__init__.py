"""The report writer: tables and pages of comparisons, suites and studies, from their results."""
