"""`holdfast doctor`: looks at everything an installation rests on and names each mistake with its remedy."""
