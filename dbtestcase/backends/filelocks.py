"""Locks on files: held while this process lives, whatever way it ends; a forked process does not inherit them."""

from __future__ import annotations

import fcntl
import os
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path

from ..errors import DatabaseError
from ..reporting import limit_named_by

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """An exclusive lock on a file that is made for the purpose."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; whether it was had, without waiting for another process that holds it.

        :raises DatabaseError: the file system has no locks.
        """
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError as error:
                os.close(descriptor)
                cause, remedy = limit_named_by(error) or ("the system refuses it.", "use another folder.")
                raise DatabaseError(
                    f"The file {self.path} cannot be locked: {error.strerror}.", cause=cause, remedy=remedy
                ) from error
            except BaseException:
                os.close(descriptor)
                raise
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    self._descriptor = descriptor
                    _held.add(self)
                    return True
            os.close(descriptor)  # the last holder has removed the file that we have locked: lock the new one

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; with ``remove`` the file goes as well."""
        if self._descriptor < 0:
            return
        if remove:
            with suppress(FileNotFoundError):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1
        _held.discard(self)

    def _let_go(self) -> None:
        # Closing the copy of the descriptor leaves the lock with the parent, and with nobody else.
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


def _forked() -> None:
    with ExitStack() as every:  # one whose descriptor somebody else has closed keeps none of the others
        every.callback(_held.clear)
        for lock in list(_held):
            every.callback(lock._let_go)


os.register_at_fork(after_in_child=_forked)
