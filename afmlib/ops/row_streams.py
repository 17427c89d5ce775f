r"""Random numbers by image, so that a process draws the rows of its own samples and no others.

A field of the draws is a table: row :math:`n` has the numbers of image :math:`n` in the training of
a player. The table is cut into blocks of about 4096 numbers, as many rows as fit, at least one.
Each block has its own stream, named (seed, player, stream, field, block). So a row does not depend
on the batch, the processes or the micro-batches. Wide rows are drawn one by one, narrow ones
together.

A stream is torch's Mersenne Twister with a state of 624 words from the counter-based Philox
generator. A seed would not do: torch seeds the CPU generator with 32 bits, and two of 100,000
blocks would probably be equal.

References:
    | Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al., 2011), for Philox
    | https://doi.org/10.1145/2063384.2063405
"""

__all__ = ["RowStreams"]

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 4096
"""Numbers in a block of narrow rows."""

NUM_WORDS, FIRST_BYTE, WORD_BYTES = 624, 24, 8
"""Where the words lie in the state of a CPU generator, a layout that torch keeps private."""


class RowStreams:
    """The random numbers of some rows of a batch. Each call draws the next field.

    Args:
        name: The seed of the run, the number of the player, and that of the stream.
        first_image: The number of the batch's first image.
        places: The places of the rows in the batch, ascending.
        batch_size: The number of rows of the whole batch.
        player: The player that is updated; None if all players use the draws.

    Raises:
        ValueError: If a number of the name is not in [0, 2**64).
    """

    def __init__(
        self,
        name: tuple[int, int, int],
        first_image: int,
        places: range,
        batch_size: int,
        player: str | None = None,
    ) -> None:
        if not all(0 <= number < 2**64 for number in name):
            raise ValueError(f"Seeds must be in [0, 2**64), got {list(name)}.")
        self.name = name
        self.first_image = first_image
        self.places = places
        self.batch_size = batch_size
        self.player = player
        self.num_fields = 0
        self._generator = torch.Generator()
        self._state = self._generator.get_state()
        words = self._state.numpy()[FIRST_BYTE : FIRST_BYTE + NUM_WORDS * WORD_BYTES]
        self._words = words.view(np.uint64)

    def normals(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Draws standard normal numbers for the first ``shape[0]`` rows."""
        return self._draw(shape, dtype, torch.Tensor.normal_)

    def uniforms(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Draws numbers in [0, 1) for the first ``shape[0]`` rows."""
        return self._draw(shape, dtype, torch.Tensor.uniform_)

    def _draw(
        self, shape: Sequence[int], dtype: torch.dtype | None, fill: Callable[..., Tensor]
    ) -> Tensor:
        num_rows, *row_shape = shape
        if num_rows > len(self.places):
            raise ValueError(f"{num_rows} rows are drawn, of a batch of {len(self.places)}.")
        per_block = max(BLOCK // max(math.prod(row_shape), 1), 1)
        rows = torch.empty(shape, dtype=dtype)
        done, step = 0, self.places.step
        while done < num_rows:
            block, first = divmod(self.first_image + self.places[done], per_block)
            table = torch.empty(per_block, *row_shape, dtype=dtype)
            found = fill(table, generator=self._stream(block))[first::step][: num_rows - done]
            rows[done : done + len(found)] = found
            done += len(found)
        self.num_fields += 1
        return rows

    def _stream(self, block: int) -> torch.Generator:
        """Returns a generator at the start of a block of the current field."""
        seed, player, stream = self.name
        # As plain tuples, large numbers would become floats.
        key = np.array((seed, player), np.uint64)
        counter = np.array((0, self.num_fields, block, stream), np.uint64)
        philox = np.random.Philox(key=key, counter=counter)
        self._words[:] = philox.random_raw(NUM_WORDS // 2).view(np.uint32)
        self._generator.set_state(self._state)
        return self._generator
