"""Figure 1: C_GenerateRandom + C_EncryptInit + C_Encrypt in one thread, through the binding and nothing else.

Run as `python -m bench.raw DIRECTORY SECONDS` in a process of its own, since it loads the library.
"""

import os
import sys
import time
from pathlib import Path

import msgspec
from tests.server.token import HEALTH_KEY, LIBRARY, PIN, TOKEN, softhsm_environment

from bench.load import AAD, DATA_KEY
from holdfast.hsm.pkcs11 import constants as c
from holdfast.hsm.pkcs11.cryptoki import Cryptoki, ffi
from holdfast.xks.aad import AadFraming, CiphertextMetadata, hsm_aad
from holdfast.xks.secret import Secret


def measure(directory: Path, seconds: float) -> dict[str, float]:
    """Operations per second of wall time, and CPU microseconds per operation."""
    environment = softhsm_environment(directory)
    os.environ.update(environment)
    module = Cryptoki(str(LIBRARY), environment)
    module.initialize()
    slot = next(slot for slot in module.slots() if module.token_info(slot).label == TOKEN)
    session = module.open_session(slot, read_write=True)
    module.login(session, Secret(PIN.encode()))
    (key,) = module.find_objects(session, {c.CKA_LABEL: HEALTH_KEY.encode()}, limit=2)
    aad = hsm_aad(AAD, CiphertextMetadata(AadFraming.SPEC, 1).to_bytes(), AadFraming.SPEC)
    iv, covered, out = ffi.new("CK_BYTE[12]"), ffi.new("CK_BYTE[]", aad), ffi.new("CK_BYTE[256]")
    length = ffi.new("CK_ULONG *")
    parameters = ffi.new(
        "CK_GCM_PARAMS *",
        {"pIv": iv, "ulIvLen": 12, "ulIvBits": 96, "pAAD": covered, "ulAADLen": len(aad), "ulTagBits": 128},
    )
    mechanism = ffi.new(
        "CK_MECHANISM *",
        {"mechanism": c.CKM_AES_GCM, "pParameter": parameters, "ulParameterLen": ffi.sizeof("CK_GCM_PARAMS")},
    )
    random, init, encrypt = module.C_GenerateRandom, module.C_EncryptInit, module.C_Encrypt
    count, began, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        for _ in range(100):
            length[0] = 256
            failed = (
                random(session, iv, 12)
                or init(session, mechanism, key)
                or encrypt(session, DATA_KEY, len(DATA_KEY), out, length)
            )
            if failed:
                raise SystemExit(f"CKR 0x{failed:X}")
        count += 100
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    module.finalize()
    return {"rate": count / wall, "cpu_microseconds": cpu / count * 1e6}


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure(Path(sys.argv[1]), float(sys.argv[2]))))
