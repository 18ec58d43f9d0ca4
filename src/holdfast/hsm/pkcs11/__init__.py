"""PKCS#11: the cffi binding, sessions, handles, vendor profiles and the backend."""
