"""The files in configs/cluster: what Ray, KubeRay and our own command line make of them."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from support.command_line import check

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "configs" / "cluster"
FILES = sorted(FOLDER.iterdir())
LAUNCHED = ("onprem.yaml", "aws.yaml")
KUBERNETES = ("raycluster.yaml", "rayjob.yaml")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def loaded(name: str) -> Any:
    return yaml.safe_load(text(name))


def pinned(library: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (version,) = (line.split("==")[1] for line in lines if line.startswith(f"{library}=="))
    return version


def commands(name: str) -> list[list[str]]:
    """Every command line of ours in a file, in its comments too, as words."""
    lines = re.sub(r"\n\s+(?=--)", " ", text(name)).splitlines()
    found = (
        re.search(r"\bfrieze (?:render|resume|submit|plan|export|batch|status)\b.*", x)
        for x in lines
    )
    return [shlex.split(match[0], comments=True)[1:] for match in found if match]


# Our own commands and versions


@pytest.mark.parametrize("name", [*LAUNCHED, *KUBERNETES])
def test_every_command_of_ours_is_one_that_our_command_line_takes(name: str) -> None:
    found = commands(name)
    assert found
    for words in found:
        check(words)


@pytest.mark.parametrize(
    "words", [["render", "x", "--wokers", "2"], ["submit", "--", "render", "x", "--out", "a.zarr"]]
)
def test_control_a_command_that_is_none_is_found(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"wokers|every node sees"):
        check(words)


def test_every_file_names_the_same_image_of_this_version_and_this_ray() -> None:
    names = [found for file in FILES for found in re.findall(r"registry\S+", file.read_text())]
    tag = f"{PROJECT['version']}-ray{pinned('ray')}"
    assert set(names) == {f"registry.example/frieze:{tag}"}
    assert len(names) >= len(FILES)


def test_no_file_ends_a_ray_that_is_not_its_own() -> None:
    for file in FILES:
        assert not re.search(r"\bray\s+stop\b", file.read_text()), file


def test_the_wheel_takes_every_file_along() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    patterns = tool["setuptools"]["package-data"]["frieze.configs"]
    shipped = {path for pattern in patterns for path in (ROOT / "configs").glob(pattern)}
    assert set(FILES) <= shipped


# Files for `ray up`


def prepared(config: Any) -> Any:
    """What `ray up` makes of a file before it asks the cloud; raises what is wrong."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    made = prepare_config(copy.deepcopy(config))
    validate_config(made)
    return made


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_up_takes_the_file(name: str) -> None:
    config = loaded(name)
    made = prepared(config)
    assert made["head_start_ray_commands"] == config["head_start_ray_commands"]
    assert made["worker_start_ray_commands"] == config["worker_start_ray_commands"]
    assert made["docker"]["image"] == config["docker"]["image"]
    workers = [
        kind for kind in made["available_node_types"] if kind != config.get("head_node_type")
    ]
    assert all(made["available_node_types"][kind]["max_workers"] > 0 for kind in workers)


@pytest.mark.parametrize("name", LAUNCHED)
def test_control_ray_up_refuses_a_misspelt_key(name: str) -> None:
    with pytest.raises(Exception, match="idle_timeout_minuets"):
        prepared({**loaded(name), "idle_timeout_minuets": 5})


@pytest.mark.ray  # with ray's scripts comes ray.serve, which marks functions as remote
@pytest.mark.parametrize("name", LAUNCHED)
def test_every_flag_of_ray_start_is_one(name: str) -> None:
    from ray.scripts.scripts import start

    known = {flag for parameter in start.params for flag in parameter.opts}
    config = loaded(name)
    for line in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        program, verb, *flags = shlex.split(line)
        assert (program, verb) == ("ray", "start")
        assert {flag.split("=")[0] for flag in flags} <= known
        assert ("--head" in flags) != any(flag.startswith("--address=") for flag in flags)


def test_spot_machines_are_asked_for_and_the_head_is_none() -> None:
    kinds = loaded("aws.yaml")["available_node_types"]
    market = {name: "InstanceMarketOptions" in kind["node_config"] for name, kind in kinds.items()}
    assert market == {"head": False, "gpu-spot": True}


# Manifests for KubeRay: the fields of its resources (ray.io/v1 of KubeRay 1.7) that are in use

POD: dict[str, Any] = {
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "containers": [
        {
            "name!": str,
            "image!": str,
            "env": [{"name!": str, "value!": str}],
            "ports": [{"containerPort!": int, "name!": str}],
            "resources!": {"requests!": {}, "limits!": {}},
            "volumeMounts": [{"name!": str, "mountPath!": str, "readOnly": bool}],
        }
    ],
    "volumes": [
        {
            "name!": str,
            "persistentVolumeClaim": {"claimName!": str},
            "emptyDir": {"medium!": str, "sizeLimit!": str},
        }
    ],
    "tolerations": [{"key!": str, "operator!": str, "effect!": str}],
}
GROUP = {"rayStartParams!": {}, "template!": {"spec!": POD}}
WORKERS = {"groupName!": str, "replicas!": int, "minReplicas!": int, "maxReplicas!": int}
CLUSTER = {
    "rayVersion!": str,
    "authOptions!": {"mode!": str},
    "enableInTreeAutoscaling!": bool,
    "autoscalerOptions": {"version!": str, "upscalingMode!": str, "idleTimeoutSeconds!": int},
    "headGroupSpec!": GROUP,
    "workerGroupSpecs!": [{**WORKERS, **GROUP}],
}
JOB = {
    "entrypoint!": str,
    "submissionMode!": str,
    "metadata": {},
    "runtimeEnvYAML": str,
    "shutdownAfterJobFinishes!": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "preRunningDeadlineSeconds": int,
    "backoffLimit!": int,
    "rayClusterSpec!": CLUSTER,
}
SCHEMAS = {
    kind: {
        "apiVersion!": str,
        "kind!": str,
        "metadata!": {"name!": str, "labels": {}},
        "spec!": spec,
    }
    for kind, spec in {"RayCluster": CLUSTER, "RayJob": JOB}.items()
}


def misfits(value: Any, schema: Any, place: str = "") -> Iterator[str]:
    """Where a value has a field that is none, lacks one, or has one of another type.

    A mapping's fields are all there may be, those with "!" must be; {} maps text to text.
    """
    if isinstance(schema, type):
        if type(value) is not schema:
            yield f"{place} is {value!r}, no {schema.__name__}"
    elif isinstance(schema, list):
        assert isinstance(value, list), place
        for index, item in enumerate(value):
            yield from misfits(item, schema[0], f"{place}[{index}]")
    elif not schema:
        yield from (
            f"{place}.{k} is {v!r}, no text" for k, v in value.items() if type(v) is not str
        )
    else:
        fields = {name.rstrip("!"): part for name, part in schema.items()}
        needed = {name.rstrip("!") for name in schema if name.endswith("!")}
        yield from (f"{place}.{name} is missing" for name in needed - value.keys())
        for name, item in value.items():
            if name in fields:
                yield from misfits(item, fields[name], f"{place}.{name}")
            else:
                yield f"{place}.{name} is no field"


def cluster_of(manifest: Any) -> Any:
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


@pytest.mark.parametrize("name", KUBERNETES)
def test_a_manifest_has_the_fields_of_its_kind_and_no_others(name: str) -> None:
    manifest = loaded(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert list(misfits(manifest, SCHEMAS[manifest["kind"]])) == []
    cluster = cluster_of(manifest)
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        (container,) = pod["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
    for workers in cluster["workerGroupSpecs"]:
        assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


@pytest.mark.parametrize("name", KUBERNETES)
def test_control_a_manifest_with_a_mistake_does_not_fit(name: str) -> None:
    for path, value in [
        (("rayVersoin",), "2.60.0"),
        (("headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("headGroupSpec", "template", "spec", "restartpolicy"), "Never"),
        (("enableInTreeAutoscaling",), "true"),
    ]:
        manifest = loaded(name)
        place = cluster_of(manifest)
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        (found,) = misfits(manifest, SCHEMAS[manifest["kind"]])
        assert path[-1] in found
    manifest = loaded(name)
    del cluster_of(manifest)["rayVersion"]
    (found,) = misfits(manifest, SCHEMAS[manifest["kind"]])
    assert found.endswith(".rayVersion is missing")


def test_a_retried_job_finishes_what_the_cluster_before_it_saved() -> None:
    job = loaded("rayjob.yaml")["spec"]
    assert job["backoffLimit"] > 0
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["frieze", "render"]
    assert "--continue" in words
    out = words[words.index("--out") + 1]
    assert job["metadata"]["frieze_store"] == out
    groups = [cluster_of(loaded("rayjob.yaml"))["headGroupSpec"]]
    groups += cluster_of(loaded("rayjob.yaml"))["workerGroupSpecs"]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert any(out.startswith(m["mountPath"] + "/") for m in container["volumeMounts"])
    most = int(words[words.index("--workers") + 1])
    assert most <= sum(
        g["maxReplicas"]
        for g in loaded("rayjob.yaml")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    )


def test_kueue_takes_the_job() -> None:
    """What its webhook for RayJobs refuses: an autoscaler, a cluster that stays, eight groups."""
    job = loaded("rayjob.yaml")
    assert job["metadata"]["labels"].keys() == {"kueue.x-k8s.io/queue-name"}
    cluster = cluster_of(job)
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "clusterSelector" not in job["spec"]
    assert cluster["enableInTreeAutoscaling"] is False
    groups = cluster["workerGroupSpecs"]
    assert len(groups) <= 7
    assert all(group["groupName"] != "head" for group in groups)
    words = shlex.split(job["spec"]["entrypoint"])
    # What is reserved is what starts, for nothing asks for more later.
    reserved = sum(group["replicas"] for group in groups)
    assert reserved == int(words[words.index("--workers") + 1])


# The image


def instructions() -> list[tuple[str, str]]:
    """(instruction, its words) of the Dockerfile, in order."""
    whole = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE))
    return [(a, b) for a, _, b in (line.partition(" ") for line in whole.splitlines() if line)]


def test_the_image_is_of_a_python_that_the_package_takes() -> None:
    bases = [words.split()[0] for name, words in instructions() if name == "FROM"]
    versions = {re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", base)[1] for base in bases}  # type: ignore[index]
    (version,) = versions
    assert Version(version) in SpecifierSet(PROJECT["requires-python"])


def test_the_image_holds_the_wheel_of_this_tree_with_the_pinned_versions() -> None:
    made = instructions()
    copied = {word for name, words in made if name == "COPY" for word in words.split()[:-1]}
    sources = {word for word in copied if not word.startswith(("-", "/"))}
    assert all((ROOT / source).exists() for source in sources)
    assert {"renderer", "cluster", "kernels", "configs", "constraints.txt"} <= sources
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} <= sources
    runs = [words for name, words in made if name == "RUN"]
    (install,) = (words for words in runs if words.startswith("pip install"))
    assert "--constraint /tmp/constraints.txt" in install
    extras = Requirement("frieze" + re.findall(r"\[[a-z0-9,]+\]", install)[0]).extras
    assert extras <= PROJECT["optional-dependencies"].keys()
    user = [words for name, words in made if name == "USER"]
    assert user == ["ray"]
