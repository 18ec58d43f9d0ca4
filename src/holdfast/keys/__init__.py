"""What everybody means by a key: its generations, its budget of encryptions, whether it is fit for use."""
