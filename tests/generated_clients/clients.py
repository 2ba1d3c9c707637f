"""The clients that others make from the OpenAPI document compile, move credits and read a balance from a running API.

Not part of `make test`: it fetches generators and their libraries from the registries of Python, npm and Maven.
`make clients` runs it. It needs Go, Java with Maven, and Node with npm.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

HERE = Path(__file__).parent
#: What makes clients, and what judges the document.
PYTHON_PACKAGES = ["openapi-generator-cli==7.26.0", "openapi-python-client==0.29.1"]
NODE_PACKAGES = [
    "@hey-api/openapi-ts@0.95.0",
    "@redocly/cli@2.77.0",
    "@stoplight/spectral-cli@6.16.3",
    "@types/node@20.19.9",
    "openapi-fetch@0.17.0",
    "openapi-typescript@7.13.0",
    "typescript@5.9.3",
]
JAVA_RUNNER = "org.codehaus.mojo:exec-maven-plugin:3.5.0:java"
#: How long one step may take, downloads included, in seconds.
STEP_SECONDS = 900.0
#: As most projects have it: strict, and nothing of the libraries is checked.
TYPESCRIPT = {
    "compilerOptions": {
        "strict": True,
        "target": "es2022",
        "module": "commonjs",
        "moduleResolution": "node10",
        "lib": ["es2022", "dom", "dom.iterable"],
        "esModuleInterop": True,
        "skipLibCheck": True,
        "types": ["node"],
        "outDir": "made",
    },
    "include": ["main.ts", "client"],
}
ACCOUNTS = "/v1/customer-credits/accounts"

pytestmark = pytest.mark.timeout(4 * STEP_SECONDS)


class Tools(NamedTuple):
    """Where the generators are installed."""

    python: Path
    node: Path

    def generator_jar(self) -> Path:
        (jar,) = self.python.glob("lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar")
        return jar

    def of_node(self, name: str) -> Path:
        return self.node / "node_modules" / ".bin" / name


class Served(NamedTuple):
    """A running API: its address, a key, and its document in a file."""

    url: str
    key: str
    document: Path


def run(*command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run one step and return what it printed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=STEP_SECONDS,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-6_000:]}\n{done.stderr[-6_000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    for program in ("go", "java", "mvn", "node", "npm"):
        assert shutil.which(program), f"{program} is not installed, and clients are made with it"
    directory = tmp_path_factory.mktemp("tools")
    made = Tools(directory / "python", directory / "node")
    run(sys.executable, "-m", "venv", made.python, cwd=directory)
    pip = [made.python / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "install", *PYTHON_PACKAGES, cwd=directory)
    made.node.mkdir()
    npm = ["npm", "install", "--prefix", made.node, "--no-audit", "--no-fund", "--ignore-scripts"]
    run(*npm, *NODE_PACKAGES, cwd=directory)
    return made


@pytest.fixture
def served(serve_api: Any, tmp_path: Path) -> Served:
    url, key = serve_api()
    document = tmp_path / "openapi.json"
    document.write_bytes(httpx2.get(f"{url}/openapi.json", timeout=60).content)
    return Served(url, key, document)


def generate(tools: Tools, served: Served, generator: str, target: Path) -> None:
    """Make a client with openapi-generator as it comes, without any option."""
    jar = tools.generator_jar()
    run("java", "-jar", jar, "generate", "-i", served.document, "-g", generator, "-o", target, cwd=target.parent)


def compiled(tools: Tools, directory: Path, program: str) -> Path:
    """Return the JavaScript of a program beside its client in `client/`, and of that, checked strictly."""
    shutil.copy(HERE / program, directory / "main.ts")
    (directory / "tsconfig.json").write_text(json.dumps(TYPESCRIPT))
    (directory / "node_modules").symlink_to(tools.node / "node_modules")
    run(tools.of_node("tsc"), "--project", directory, cwd=directory)
    return directory / "made" / "main.js"


def assert_reads_a_balance(served: Served, *command: str | Path, cwd: Path) -> None:
    """Hold that the program, which debits 30 of 100, reads 70, when it was so, and the same of a moment to come."""
    with httpx2.Client(base_url=served.url, headers={"x-api-key": served.key}, timeout=60) as http:
        made = http.post(ACCOUNTS, json={"customer_id": "cust_42", "initial_balance": "100"}).json()
    environment = {
        "API_URL": served.url,
        "API_KEY": served.key,
        "ACCOUNT": made["id"],
        "IDEMPOTENCY_KEY": "generated client",
    }

    printed = run(*command, cwd=cwd, environment=environment)

    # Maven puts colours around what the program prints.
    read, _ = json.JSONDecoder().raw_decode(printed[printed.index("{") :])
    assert (read["balance"], read["later"], read["now_as_of"]) == ("70", "70", None)
    now_ms = time.time() * 1_000
    assert abs(read["updated_at"] - now_ms) < STEP_SECONDS * 1_000
    assert abs(read["later_as_of"] - now_ms) < STEP_SECONDS * 1_000


def test_spectral_and_redocly_find_no_error(tools: Tools, served: Served, tmp_path: Path) -> None:
    (tmp_path / ".spectral.yaml").write_text('extends: ["spectral:oas"]\n')
    (tmp_path / "redocly.yaml").write_text("extends: [recommended]\n")

    # A warning fails the first one, too.
    run(tools.of_node("spectral"), "lint", "--fail-severity=warn", served.document, cwd=tmp_path)
    found = json.loads(run(tools.of_node("redocly"), "lint", "--format=json", served.document, cwd=tmp_path))

    assert (found["totals"]["errors"], found["totals"]["warnings"]) == (0, 0), found["problems"]


def test_openapi_generator_for_go(tools: Tools, served: Served, tmp_path: Path) -> None:
    client = tmp_path / "client"
    generate(tools, served, "go", client)
    (client / "cmd").mkdir()
    shutil.copy(HERE / "read_balance.go", client / "cmd" / "main.go")
    run("go", "build", "-o", "read-balance", "./cmd", cwd=client)
    run("go", "vet", ".", "./cmd", cwd=client)

    assert_reads_a_balance(served, client / "read-balance", cwd=client)


def test_openapi_generator_for_java(tools: Tools, served: Served, tmp_path: Path) -> None:
    client = tmp_path / "client"
    generate(tools, served, "java", client)
    shutil.copy(HERE / "ReadBalance.java", client / "src" / "main" / "java")
    run("mvn", "--quiet", "--batch-mode", "-DskipTests", "test-compile", cwd=client)

    command = ["mvn", "--quiet", "--batch-mode", JAVA_RUNNER, "-Dexec.mainClass=ReadBalance"]
    assert_reads_a_balance(served, *command, cwd=client)


def test_openapi_generator_for_typescript(tools: Tools, served: Served, tmp_path: Path) -> None:
    generate(tools, served, "typescript-fetch", tmp_path / "client")

    assert_reads_a_balance(served, "node", compiled(tools, tmp_path, "openapi_generator.ts"), cwd=tmp_path)


def test_hey_api(tools: Tools, served: Served, tmp_path: Path) -> None:
    run(tools.of_node("openapi-ts"), "-i", served.document, "-o", tmp_path / "client", cwd=tools.node)

    assert_reads_a_balance(served, "node", compiled(tools, tmp_path, "hey_api.ts"), cwd=tmp_path)


def test_openapi_typescript(tools: Tools, served: Served, tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    schema = tmp_path / "client" / "schema.d.ts"
    run(tools.of_node("openapi-typescript"), served.document, "--output", schema, cwd=tmp_path)

    assert_reads_a_balance(served, "node", compiled(tools, tmp_path, "openapi_typescript.ts"), cwd=tmp_path)


def test_openapi_python_client(tools: Tools, served: Served, tmp_path: Path) -> None:
    python = tools.python / "bin" / "python"
    generator = tools.python / "bin" / "openapi-python-client"
    client = ["--meta", "none", "--output-path", tmp_path / "client"]
    run(generator, "generate", "--path", served.document, *client, cwd=tmp_path)
    shutil.copy(HERE / "read_balance.py", tmp_path / "main.py")
    run(python, "-m", "compileall", "-q", "client", cwd=tmp_path)

    assert_reads_a_balance(served, python, "main.py", cwd=tmp_path)
