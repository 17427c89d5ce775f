"""Sharing models: the layout of the Hugging Face Hub, model cards, and pipelines of diffusers."""

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained", "write_export"]

from afmlib.hub.folder import from_pretrained, push_to_hub, save_pretrained, write_export
