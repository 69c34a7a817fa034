"""What the kernels in which pytest compares notebooks inherit."""

from reactivation_core.edition import execution


def pytest_configure(config):
    """Until the tests end."""
    shelter = execution.unconfigured()
    shelter.__enter__()
    config.add_cleanup(lambda: shelter.__exit__(None, None, None))
