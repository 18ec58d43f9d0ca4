"""The process that sends events and changes to where they are watched: syslog receivers, OpenTelemetry collectors."""
