"""Amounts of money as text. They are whole nano-USD everywhere else."""

from gateway.call import NANO


def exact(nano: int) -> str:
    """US dollars with all nine decimals: `0.042000000`."""
    return f"{nano // NANO}.{nano % NANO:09d}" if nano >= 0 else f"-{exact(-nano)}"


def short(nano: int) -> str:
    """For reading: in cents, or finer where cents show nothing."""
    amount = nano / NANO
    return f"${amount:,.2f}" if not 0 < abs(amount) < 0.1 else f"${amount:.4f}"


def trimmed(nano: int) -> str:
    """US dollars, exact, without trailing zeros: `25`, `0.5`."""
    return exact(nano).rstrip("0").rstrip(".")
