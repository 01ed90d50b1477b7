"""A real RTSP camera on loopback: GStreamer's own server with a moving picture, made up on the spot.

Runs with Debian's own Python (`/usr/bin/python3`), which has GStreamer's bindings, as a process of its own:

    /usr/bin/python3 tests/support/rtsp_server.py --port 8554 --width 320 --height 240 --fps 15

It prints `ready` when it listens, and takes one command a line on its standard input: `size WIDTH HEIGHT` switches the
resolution within the running stream. It ends when its standard input ends, so that no test can leave one behind.
"""

from __future__ import annotations

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def caps(width: int, height: int, fps: int) -> str:
    return f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1"


def launch(width: int, height: int, fps: int) -> str:
    return (
        "( videotestsrc is-live=true pattern=ball ! capsfilter name=size caps="
        f"{caps(width, height, fps)} ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 "
        f"key-int-max={fps} bitrate=600 ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    given = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(given.port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch(given.width, given.height, given.fps))
    factory.set_shared(True)
    if given.user:
        protect(server, factory, given.user, given.password)
    made = []
    factory.connect("media-configure", lambda _, media: made.append(media))
    server.get_mount_points().add_factory("/live", factory)
    if server.attach(None) == 0:
        print(f"Port {given.port} cannot be listened on.", file=sys.stderr)
        return 1
    loop = GLib.MainLoop()

    def obey(source: int, condition: GLib.IOCondition) -> bool:
        words = sys.stdin.readline().split()
        if not words:
            loop.quit()
            return False
        if words[0] == "size":
            width, height = int(words[1]), int(words[2])
            factory.set_launch(launch(width, height, given.fps))  # for those who connect from now on
            switched = Gst.Caps.from_string(caps(width, height, given.fps))
            for media in made:
                element = media.get_element().get_by_name("size")
                if element is not None:
                    element.set_property("caps", switched)
        return True

    GLib.io_add_watch(sys.stdin.fileno(), GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, obey)
    print("ready", flush=True)
    loop.run()
    return 0


def protect(
    server: GstRtspServer.RTSPServer, factory: GstRtspServer.RTSPMediaFactory, user: str, password: str
) -> None:
    """Ask everybody for a user and a password."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    raise SystemExit(main())
