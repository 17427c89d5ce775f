"""What two processes do with folders of images, for tests/data/test_image_folder.py."""

import torch

from afmlib import processes
from afmlib.data import image_files
from afmlib.data.image_folder import ImageFolder
from afmlib.data.image_store import ImageStore
from afmlib.engine import join_processes, leave_processes

__all__ = ["look_together"]


def look_together(folder, results):
    """Opens three folders, and stores what each process found and did."""
    join_processes("cpu")
    listings, scan = [], image_files._scan
    image_files._scan = lambda *args: listings.append(args) or scan(*args)
    errors, read, contents = [], ImageStore._content, []
    ImageStore._content = lambda store, row: contents.append(row) or read(store, row)
    for name in ("good", "bad", "missing"):
        try:
            data = ImageFolder(f"{folder}/{name}", size=8)
        except (ValueError, OSError) as error:
            errors.append(str(error))
        else:
            found = (list(data.files), data.labels.tolist(), data.class_names, len(contents))
    torch.save((found, errors, len(listings)), f"{results}-{processes.rank()}.pt")
    leave_processes()
