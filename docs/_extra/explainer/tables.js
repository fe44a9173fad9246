/* Written by docs/figures.py, from the library. Do not edit. */
"use strict";

const Tables = {
  presets: [
    {"name": "small: 12 × 12", "grid": [12, 12], "window": [4, 4], "shift": [2, 2], "dim": 96, "windows": 9, "kinds": {"inner": 4, "right": 2, "bottom": 2, "corner": 1}, "masked": {"inner": 0, "right": 128, "bottom": 128, "corner": 192}, "macs": {"windows": 5750784, "all": 9289728}},
    {"name": "as in the paper: 8 × 8", "grid": [8, 8], "window": [4, 4], "shift": [2, 2], "dim": 96, "windows": 4, "kinds": {"inner": 1, "right": 1, "bottom": 1, "corner": 1}, "masked": {"inner": 0, "right": 128, "bottom": 128, "corner": 192}, "macs": {"windows": 2555904, "all": 3145728}},
    {"name": "Swin-T, stage 1: 56 × 56", "grid": [56, 56], "window": [7, 7], "shift": [3, 3], "dim": 96, "windows": 64, "kinds": {"inner": 49, "right": 7, "bottom": 7, "corner": 1}, "masked": {"inner": 0, "right": 1176, "bottom": 1176, "corner": 1776}, "macs": {"windows": 145108992, "all": 2003828736}},
    {"name": "Swin-T, stage 3: 14 × 14", "grid": [14, 14], "window": [7, 7], "shift": [3, 3], "dim": 384, "windows": 4, "kinds": {"inner": 1, "right": 1, "bottom": 1, "corner": 1}, "masked": {"inner": 0, "right": 1176, "bottom": 1176, "corner": 1776}, "macs": {"windows": 122981376, "all": 145108992}},
    {"name": "Swin-T, stage 4: 7 × 7", "grid": [7, 7], "window": [7, 7], "shift": [3, 3], "dim": 768, "windows": 1, "kinds": {"inner": 1}, "masked": {"inner": 0}, "macs": {"windows": 119293440, "all": 119293440}},
    {"name": "with padding: 15 × 19", "grid": [15, 19], "window": [4, 4], "shift": [2, 2], "dim": 96, "windows": 20, "kinds": {"inner": 12, "right": 3, "bottom": 4, "corner": 1}, "masked": {"inner": 0, "right": 128, "bottom": 128, "corner": 192}, "macs": {"windows": 12779520, "all": 26101440}},
    {"name": "wide and low: 6 × 24", "grid": [6, 24], "window": [6, 6], "shift": [3, 3], "dim": 96, "windows": 4, "kinds": {"inner": 3, "right": 1}, "masked": {"inner": 0, "right": 648}, "macs": {"windows": 6303744, "all": 9289728}},
    {"name": "a shift of 1: 12 × 12", "grid": [12, 12], "window": [4, 4], "shift": [1, 1], "dim": 96, "windows": 9, "kinds": {"inner": 4, "right": 2, "bottom": 2, "corner": 1}, "masked": {"inner": 0, "right": 96, "bottom": 96, "corner": 156}, "macs": {"windows": 5750784, "all": 9289728}},
    {"name": "no shift: 12 × 12", "grid": [12, 12], "window": [4, 4], "shift": [0, 0], "dim": 96, "windows": 9, "kinds": {"inner": 9}, "masked": {"inner": 0}, "macs": {"windows": 5750784, "all": 9289728}},
  ],
  swin: [
    {"grid": [56, 56], "counts": [8, 8], "blocks": [{"shift": [0, 0], "masked": 0}, {"shift": [3, 3], "masked": 15}]},
    {"grid": [28, 28], "counts": [4, 4], "blocks": [{"shift": [0, 0], "masked": 0}, {"shift": [3, 3], "masked": 7}]},
    {"grid": [14, 14], "counts": [2, 2], "blocks": [{"shift": [0, 0], "masked": 0}, {"shift": [3, 3], "masked": 3}, {"shift": [0, 0], "masked": 0}, {"shift": [3, 3], "masked": 3}, {"shift": [0, 0], "masked": 0}, {"shift": [3, 3], "masked": 3}]},
    {"grid": [7, 7], "counts": [1, 1], "blocks": [{"shift": [0, 0], "masked": 0}, {"shift": [0, 0], "masked": 0}]},
  ],
  results: [
    {"name": "shifted_attention", "windows": 16, "edges": 7, "top1": {"mean": 59.49, "low": 57.29, "high": 61.68}},
    {"name": "shifted_attention_no_mask", "windows": 16, "edges": 7, "top1": {"mean": 57.03, "low": 55.98, "high": 58.08}, "difference": {"mean": -2.46, "low": -3.68, "high": -1.23}},
    {"name": "regular_attention", "windows": 16, "edges": 7, "top1": {"mean": 56.21, "low": 53.86, "high": 58.56}, "difference": {"mean": -3.28, "low": -4.03, "high": -2.52}},
  ],
};
