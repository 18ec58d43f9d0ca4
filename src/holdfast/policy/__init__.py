"""Secondary authorization (spec, "Authorization"): which AWS caller may use which external key, in Cedar. Pure."""
