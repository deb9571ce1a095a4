"""A cable between two network namespaces through which every packet takes a given time.

python benchmarks/cable.py SECONDS NAMESPACE LINK NAMESPACE LINK

For kernels without netem. Makes a TUN device of each name in its namespace and carries packets between
them until it is ended.
"""

import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
LARGEST = 65_536


def main() -> None:
    delay_s, *places = sys.argv[1:]
    ends = [opened(namespace, link) for namespace, link in (places[:2], places[2:])]
    carry(ends, float(delay_s))


def opened(namespace: str, link: str) -> int:
    """The descriptor of a new device, made inside of a namespace."""
    with open(f"/var/run/netns/{namespace}") as place:
        if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", link.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def carry(ends: list[int], delay_s: float) -> None:
    """What is read at one end is written at the other after the delay, in order."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    under_way: deque[tuple[float, int, bytes]] = deque()
    while True:
        patience = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for end in select.select(ends, (), (), patience)[0]:
            packet = os.read(end, LARGEST)
            under_way.append((time.monotonic() + delay_s, other[end], packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, end, packet = under_way.popleft()
            os.write(end, packet)


if __name__ == "__main__":
    main()
