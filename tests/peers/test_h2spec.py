# SPDX-License-Identifier: Apache-2.0
"""h2spec, which plays a client that breaks the rules of RFC 7540 and 7541 one by one."""

import subprocess
from xml.etree import ElementTree

import pytest
from conftest import ROOT

H2SPEC = ROOT / ".deps" / "peers" / "bin" / "h2spec"


@pytest.mark.parametrize("part", ["generic", "http2", "hpack"])
def test_h2spec_finds_nothing(daemon, tmp_path, part):
    report = tmp_path / "report.xml"
    host, _, port = daemon.url.removeprefix("http://").partition(":")
    done = subprocess.run([H2SPEC, part, "-h", host, "-p", port, "-P", "/healthz", "-o", "5", "-j", report],
                          capture_output=True, text=True, timeout=600)
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [f"{case.get('package')}: {case.get('classname')}" for case in cases
              if case.find("failure") is not None or case.find("error") is not None]
    assert cases and not failed and done.returncode == 0, done.stdout[-4000:]
    assert daemon.http("GET", "/healthz", token=None).status_code == 200
