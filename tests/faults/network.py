"""A network for each device, on one machine: namespaces joined to this one by virtual cables."""

import contextlib
import os
import subprocess

import pytest


def _run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


class Network:
    """Where a federation's server has an address, and some devices a cable of their own to it.

    Attributes:
        host: the server's address. It is of no cable, so that cutting one leaves it to the others.
    """

    def __init__(self):
        self.number = os.getpid() % 250 + 1
        self.host = f"10.213.{self.number}.1"
        self._cables = []
        try:
            _run("ip", "address", "replace", f"{self.host}/32", "dev", "lo")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs root and `ip`, for network namespaces")

    def cable(self):
        """One more cable, for a device."""
        made = Cable(self.number, len(self._cables) + 1)
        self._cables.append(made)
        try:
            made.lay()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs network namespaces: {error.stderr.strip()}")
        return made

    def close(self):
        """Remove all of it."""
        for cable in self._cables:
            cable.remove()
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("ip", "address", "delete", f"{self.host}/32", "dev", "lo")


class Cable:
    """A namespace and its cable, which can be cut and made slow.

    Attributes:
        prefix: what starts a command in the namespace.
    """

    def __init__(self, number, place):
        self._name = f"lepton-{number}-{place}"
        self._near, self._far = f"ln{number}-{place}", f"lf{number}-{place}"
        self._net, self._at = f"10.213.{number}", 4 * place
        self.prefix = ("ip", "netns", "exec", self._name)

    def lay(self):
        """Make both."""
        self.remove()  # what a test that was killed has left
        near, far = (f"{self._net}.{self._at + place}/30" for place in (1, 2))
        _run("ip", "netns", "add", self._name)
        _run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far,
             "netns", self._name)  # fmt: skip
        _run("ip", "address", "add", near, "dev", self._near)
        _run("ip", "link", "set", self._near, "up")
        self._within("ip", "link", "set", "lo", "up")
        self._within("ip", "address", "add", far, "dev", self._far)
        self._within("ip", "link", "set", self._far, "up")
        self._within("ip", "route", "add", "default", "via", near.partition("/")[0])

    def cut(self):
        """Nothing gets through, and nobody is told."""
        _run("ip", "link", "set", self._near, "down")

    def mend(self):
        """As before `cut`."""
        _run("ip", "link", "set", self._near, "up")

    def limit(self, rate):
        """So much a second, such as `8kbit`, each way.

        By a token bucket with a queue, which a kernel without netem has too: what waits in the
        queue is delayed as by a slow line.
        """
        bucket = ("root", "tbf", "rate", rate, "burst", "2kb", "limit", "64kb")
        try:
            _run("tc", "qdisc", "replace", "dev", self._near, *bucket)
            self._within("tc", "qdisc", "replace", "dev", self._far, *bucket)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs `tc` and a kernel with the token bucket filter")

    def unlimit(self):
        """As before `limit`."""
        _run("tc", "qdisc", "del", "dev", self._near, "root")
        self._within("tc", "qdisc", "del", "dev", self._far, "root")

    def remove(self):
        """Remove both, if they are there."""
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("ip", "link", "delete", self._near)
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("ip", "netns", "delete", self._name)

    def _within(self, *command):
        _run(*self.prefix, *command)
