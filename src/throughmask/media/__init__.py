"""Images and videos in and out of files: exact frame counts and rates, and nothing changed without a notice."""

from .images import MAX_PIXELS, read_image, read_labels, resize, resize_labels, write_image, write_labels
from .videos import MAX_FRAMES, MAX_VIDEO_PIXELS, VideoInfo, probe_video, read_video, write_video

__all__ = [
    "MAX_FRAMES",
    "MAX_PIXELS",
    "MAX_VIDEO_PIXELS",
    "VideoInfo",
    "probe_video",
    "read_image",
    "read_labels",
    "read_video",
    "resize",
    "resize_labels",
    "write_image",
    "write_labels",
    "write_video",
]
