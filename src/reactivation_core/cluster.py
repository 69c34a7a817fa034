r"""The same training on many workers, by dask.distributed.

One task a group of networks, and one more an ensemble, which joins and stores it. Only settings and progress travel;
checkpoints and ensembles are files in a folder that all workers share. The task of a worker that died is given to
another, which goes on from the checkpoint: the streams of random numbers depend on the seed and the network alone, so
the ensemble is the one that a single process trains.

Source: https://distributed.dask.org.
"""

import logging
import signal
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch

from reactivation_core.training import Progress, Run

# What goes wrong comes as an exception. Dask logs more, and calls it critical when a worker's last event finds its
# client gone.
_SILENT = logging.CRITICAL + 1


def distributed(
    runs: Iterable[Run], progress: Progress, scheduler: str | None, workers: int | None, threads: int = 1
) -> Iterator[tuple[Path, list[float]]]:
    """Train and store ensembles on a cluster; yields what `Run.store` returns, in the order in which they end.

    Args:
        scheduler: address of the cluster's scheduler.
        workers: without an address, the processes of a cluster on this machine.
        threads: CPU threads of each task.

    Raises:
        ValueError: if dask.distributed is not installed.
        ChildProcessError: if a task's worker died several times.
        ConnectionError: if the scheduler is gone.
    """
    try:
        from distributed import Client, Event, KilledWorker, LocalCluster, as_completed
    except ModuleNotFoundError:
        raise ValueError('expected dask.distributed, got none: pip install "dask[distributed]"') from None
    seen = Counter()

    def report(event: tuple[float, tuple[str, int, float]]) -> None:
        _, (name, done, loss) = event
        progress(name, done - seen[name], loss)
        seen[name] = done

    with ExitStack() as stack:
        stack.enter_context(_silence())
        cluster = scheduler
        if scheduler is None:
            # A terminal interrupts all its processes; workers that start meanwhile inherit that they ignore it.
            heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                local = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=None,
                    dashboard_address=":0",
                    silence_logs=_SILENT,
                )
                cluster = stack.enter_context(local)
            finally:
                signal.signal(signal.SIGINT, heard)
        client = stack.enter_context(Client(cluster))
        topic = f"reactivation-{uuid.uuid4()}"
        client.subscribe_topic(topic, report)
        stopped = Event(topic, client)
        stored = []
        try:
            for i, run in enumerate(runs):
                # One ensemble after the other, so that a cluster shut down early has whole ones.
                submit = partial(client.submit, priority=-i)
                groups = [
                    submit(_train, run, group, threads, topic, key=f"{run.name(group)}-{topic}")
                    for group in run.groups()
                ]
                stored.append(submit(_store, run, threads, groups, key=f"{run.experiment.name}-{topic}"))
            for future in as_completed(stored):
                yield future.result()
        except (ModuleNotFoundError, RuntimeError) as error:
            # So far from its cause comes what a scheduler could not unpickle.
            causes = (error, error.__cause__, error.__context__)
            if not any(isinstance(cause, ModuleNotFoundError) for cause in causes):
                raise
            where = f"the scheduler {scheduler or 'of this machine'} and its workers"
            raise ValueError(f"expected this library, and what it needs, on {where}, got none: {error}") from None
        except KilledWorker as error:
            raise ChildProcessError(str(error)) from None
        except CancelledError:
            address = client.scheduler.address  # pyright: ignore[reportOptionalMemberAccess]
            hint = "the same command goes on from the last checkpoints"
            raise ConnectionError(f"lost the scheduler {address}; {hint}") from None
        finally:
            # A task that is running ends only by itself.
            if client.status == "running":
                stopped.set()


@contextmanager
def _silence() -> Iterator[None]:
    # The second has a level of its own.
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_SILENT)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _train(run: Run, group: range, threads: int, topic: str) -> None:
    from distributed import Event, get_client, get_worker

    torch.set_num_threads(threads)
    worker, stopped = get_worker(), Event(topic, get_client())
    done = 0

    def progress(name: str, batches: int, loss: float) -> None:
        nonlocal done
        done += batches
        worker.log_event(topic, (name, done, loss))
        if stopped.is_set():
            raise InterruptedError(f"{name} was stopped after {done} batches")

    run.train(group, progress)


def _store(run: Run, threads: int, groups: list[None]) -> tuple[Path, list[float]]:
    torch.set_num_threads(threads)
    return run.store()
