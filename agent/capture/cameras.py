"""Which camera a task asks for."""

from __future__ import annotations

from agent.capture.camera import Camera
from agent.capture.camera_messages import Task
from agent.capture.frame import TimeClass
from agent.capture.plugin import PluginCamera
from agent.capture.rtsp import RtspCamera
from agent.capture.v4l2 import V4l2Camera
from agent.capture.watched_folder import WatchedFolder
from wire.errors import LinesideError


def camera_of(task: Task) -> Camera:
    """Build the camera, unopened.

    Raises:
        LinesideError: `source.unavailable` where there is no such kind or plug-in.
    """
    if task.kind == "rtsp":
        return RtspCamera(task.url, open_timeout_s=task.open_timeout_s, read_timeout_s=task.read_timeout_s)
    if task.kind == "v4l2":
        stamped = task.options.get("time_class") != TimeClass.ARRIVAL_ONLY.value
        return V4l2Camera(task.path, task.v4l2, read_timeout_s=task.read_timeout_s, stamped=stamped)
    if task.kind == "watched_folder":
        return WatchedFolder(task.path, remove=task.options.get("remove") is True)
    if task.kind == "plugin":
        return PluginCamera(task.plugin, task.options, task.camera)
    raise LinesideError("source.unavailable", f"A source of kind {task.kind} has no process of its own.")
