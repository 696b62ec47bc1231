"""Listen at an address, before anything costly is opened."""

import socket
from dataclasses import dataclass

from kedge_runtime.errors import UsageError, reason_of

CONNECTIONS = 256


@dataclass(frozen=True)
class Address:
    """Where to listen. `port` 0: any that is free."""

    host: str = "127.0.0.1"
    port: int = 8000

    def bind(self) -> socket.socket:
        """Return a listening socket. Raises UsageError."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # With the protocol named: asyncio turns Nagle's algorithm off for no other socket, and each
        # answer would take 40 ms.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
            listening.listen(CONNECTIONS)
        except (OSError, TypeError) as error:  # TypeError: a name that no host can have
            listening.close()
            reason = reason_of(error) if isinstance(error, OSError) else "no host name"
            raise UsageError(
                f"--host {self.host} --port {self.port}: can't listen there ({reason}); "
                "choose another host or port"
            ) from None
        listening.setblocking(False)
        return listening
