"""What two processes read together: folders of images, and data that one of them reads."""

import torch

from afmlib import processes
from afmlib.data import image_files
from afmlib.data.image_folder import ImageFolder
from afmlib.data.image_store import ImageStore
from afmlib.engine import join_processes, leave_processes
from afmlib.engine.node_reads import read_on_node

__all__ = ["look_together", "read_together"]


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


def read_together(data, results):
    """Reads a file on one process, and an invalid one; stores what this process has."""
    join_processes("cpu")
    reads, paths = [], []

    def read(path):
        reads.append(path)
        return torch.load(path)

    def place(path, tensor):
        paths.append(path)
        return 2 * tensor if path[-1] == "double" else tensor

    found, failure = read_on_node(lambda: read(data), place), None
    try:
        read_on_node(lambda: read(f"{data}.missing"))
    except FileNotFoundError as error:
        failure = str(error)
    torch.save((found, paths, len(reads), failure), f"{results}-{processes.rank()}.pt")
    leave_processes()
