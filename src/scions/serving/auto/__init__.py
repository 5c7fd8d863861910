"""Route requests with ``auto`` and ``auto-rows`` to adapters by their texts."""
