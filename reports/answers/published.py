"""Measured throughput beside the accuracy that others published."""

from __future__ import annotations

import pandas as pd

TOP1_PERCENT = {  # ImageNet-1K, trained and tested at 224x224, one crop
    "swin_t": 81.3,  # Liu et al., "Swin Transformer", ICCV 2021, table 1a
    "swin_s": 83.0,
    "swin_b": 83.5,
    "dwnet_t": 81.2,  # Han et al., ICLR 2022 (arXiv 2106.04263), table 2
    "dwnet_b": 83.2,
    "dynamic_dwnet_t": 81.8,
    "dynamic_dwnet_b": 83.2,
}


def with_accuracy(frame: pd.DataFrame) -> pd.DataFrame:
    """`top1_percent`, and the bounds of the throughput, `images_per_s_low` and `_high`, for each row of the frame.

    The accuracy is that of the published network alone: 224x224, window 7, no option changed.
    """
    as_published = (frame["height"] == 224) & (frame["width"] == 224) & (frame["window"] == 7)
    top1 = frame["model"].map(TOP1_PERCENT).astype(float).where(as_published.fillna(False).astype(bool))
    images = 1000 * frame["batch"].astype(float)
    bounds = {
        "images_per_s_low": images / frame["latency_high_ms"],
        "images_per_s_high": images / frame["latency_low_ms"].where(frame["latency_low_ms"] > 0),
    }
    return pd.DataFrame({"top1_percent": top1, **bounds}, index=frame.index)
