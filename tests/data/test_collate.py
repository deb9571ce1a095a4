import torch

from peftune.data.collate import collate
from peftune.data.encoding import EncodedRow


def test_rows_are_padded_on_the_right_and_fillers_weigh_nothing() -> None:
    rows = [
        EncodedRow((5, 6, 7), (-100, 6, 7), (5,), 0),
        None,
        EncodedRow((0, 8), (-100, 8), (), 1),
    ]
    batch = collate(rows, pad_token_id=0)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [0, 0, 0], [0, 8, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0], [1, 1, 0]],
        "labels": [[-100, 6, 7], [-100, -100, -100], [-100, 8, -100]],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_batch_of_fillers_is_one_token_wide() -> None:
    assert collate([None, None], pad_token_id=9)["input_ids"].tolist() == [[9], [9]]
