"""Metrics and traces of exchanges, for Prometheus and OpenTelemetry."""
