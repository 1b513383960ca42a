"""An asyncio loop in a thread of its own, for code that is called from ordinary threads."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class LoopThread:
    """Runs coroutines for other threads, until `close`."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
        """Wait for a coroutine's result; TimeoutError, with the work cancelled, after timeout_s."""
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise TimeoutError("the connection was closed meanwhile") from error

    def close(self) -> None:
        """Cancel what still runs and end the thread; does nothing the second time."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(_cancel_all())
            self.loop.close()


async def _cancel_all() -> None:
    """Cancel every other task and wait for it, so that none is destroyed while it waits."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
