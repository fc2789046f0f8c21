"""Self-signed certificates for the host ``localhost``, with a public test key, for servers on loopback."""

import ssl
from pathlib import Path

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgbAY6HXciqxzLjPTg
YxwqCFOEm/0/AZLmowgdDh8Kiw2hRANCAARp/uiG8WS6d9q119DHxJlHW1DT+LT3
u4H45C0oNgTm8neNznrev6CBuYGMFI8oIcSPqH+p0Zq9f5PZR/kP1bIq
-----END PRIVATE KEY-----
"""
VALID = """\
-----BEGIN CERTIFICATE-----
MIIBcTCCARegAwIBAgIBAzAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGn+6IbxZLp32rXX
0MfEmUdbUNP4tPe7gfjkLSg2BObyd43Oet6/oIG5gYwUjyghxI+of6nRmr1/k9lH
+Q/VsiqjWDBWMBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAPBgNVHRMBAf8EBTADAQH/
MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4EFgQURE5eLHvT8qVVLwS0uUH4GTbHedkw
CgYIKoZIzj0EAwIDSAAwRQIhAMMO7Y9gS09MZ76GP8FPxc1rXi7dGdpKyt4gNwC5
t+W9AiAzqMLbuPMG2cb5XvY5NS6CX/x1GAuue8zV6SstB8vBVw==
-----END CERTIFICATE-----
"""  # 2020 to 2120
EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIBbjCCARWgAwIBAgIBBDAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwHhcNMjAwMTAxMDAwMDAwWhcNMjEwMTAxMDAwMDAwWjAUMRIwEAYDVQQDDAls
b2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARp/uiG8WS6d9q119DH
xJlHW1DT+LT3u4H45C0oNgTm8neNznrev6CBuYGMFI8oIcSPqH+p0Zq9f5PZR/kP
1bIqo1gwVjAUBgNVHREEDTALgglsb2NhbGhvc3QwDwYDVR0TAQH/BAUwAwEB/zAO
BgNVHQ8BAf8EBAMCAoQwHQYDVR0OBBYEFEROXix70/KlVS8EtLlB+Bk2x3nZMAoG
CCqGSM49BAMCA0cAMEQCIDFOzfVcmYn4zmv26ud72Vjvk3S+Dug+GSxQrp3PlBuh
AiA0Ifkk21gCCjfOzlyVEd+q7FaKntEqLVqY3/sbCIhLsA==
-----END CERTIFICATE-----
"""  # 2020


def context(folder: Path, certificate: str) -> ssl.SSLContext:
    """Return the TLS context of a server with this certificate; its file is written to ``folder``."""
    path = folder / "server.pem"
    path.write_text(certificate + KEY)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(path)
    return server_context
