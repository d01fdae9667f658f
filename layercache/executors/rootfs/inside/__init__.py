"""The package inside."""
