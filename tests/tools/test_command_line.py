import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from continual_agents.methods import Method
from continual_agents.runs import Run, RunError
from tests.helpers import ROOT, command, ended
from tools import train
from tools.command_line import CONFIGS, UsageError, compose_config, group_options, plain_config, refuse_targets
from tools.help import help_text
from tools.train import check_builds, jobs, main, may_change

OTHER_OPTIMIZERS = ("muon", "trac")


@pytest.mark.parametrize("experiment", group_options("experiment"))
def test_every_experiment_composes_at_every_scale_and_with_every_method(experiment: str) -> None:
    for scale in group_options("scale"):
        config = plain_config(compose_config([f"experiment={experiment}", f"scale={scale}"]))
        assert config["scale"] == scale
    # all methods in one composition: one after the other they take half a minute
    methods = [name for name in group_options("method") if name != "compared"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        offered = [f"+method@method.of.{name}={name}" for name in methods]
        composed = compose("train", [f"experiment={experiment}", "method=compared", *offered])
    experiment_of = plain_config(compose_config([f"experiment={experiment}"]))["experiment"]
    shared = {key: experiment_of["optimizer"].get(key) for key in ("step_size", "betas")}
    for name in methods:
        settings = OmegaConf.to_container(composed.method.of[name], resolve=True)
        assert Method(**settings).name == name
        # where an experiment says what all share, a method differs from another in nothing but itself
        if shared["betas"] is not None and name not in ("tuned_adam", *OTHER_OPTIMIZERS):
            own = experiment_of.get(name, {}).get("step_size", shared["step_size"])
            assert [settings["optimizer"][key] for key in shared] == [own, shared["betas"]], name


def test_paper_scale_is_the_published_table() -> None:
    """Dohare et al. 2024, extended data: PPO and continual PPO on Slippery Ant."""
    experiment = plain_config(compose_config(["scale=paper"]))["experiment"]
    agent, friction = experiment["agent"], experiment["environment"]["friction"]
    assert experiment["steps"] == 20_000_000
    assert (friction["low"], friction["high"], friction["change_every"]) == (0.02, 2.0, 2_000_000)
    assert (agent["batch"], agent["epochs"], agent["batch"] // agent["minibatch"]) == (2048, 10, 16)
    assert (agent["discount"], agent["gae_lambda"], agent["clip"]) == (0.99, 0.95, 0.2)
    assert (agent["value_coefficient"], agent["entropy_coefficient"]) == (1.0, 0.0)
    assert agent["max_gradient_norm"] is None
    assert experiment["network"] == {"hidden": [256, 256], "activation": "relu"}

    def method(name: str) -> Method:
        return Method(**plain_config(compose_config(["scale=paper", f"method={name}"]))["method"])

    standard = {"kind": "adam", "step_size": 1e-4, "betas": [0.9, 0.999], "momentum": 0.0, "weight_decay": 0.0}
    tuned = standard | {"betas": [0.99, 0.99]}
    assert method("ppo").optimizer == standard
    assert method("tuned_adam").optimizer == tuned
    assert method("l2").optimizer == tuned | {"weight_decay": 1e-3}
    pair = method("continual_backprop_l2")
    assert pair.optimizer == tuned | {"weight_decay": 1e-4}
    (surgery,) = pair.operations.values()
    published = {"rate": 1e-4, "maturity": 10_000, "decay": 0.99, "utility": "contribution", "birth": "lecun_uniform"}
    assert surgery == published | {"keep_optimizer_state": False}
    assert method("redo").operations == {"redo": {"threshold": 0.1, "period": 100, "birth": "lecun_uniform"}}


def test_a_target_in_a_configuration_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    """Hydra's way to name code; nothing here builds it, and nothing lets it pass unread."""
    config = compose_config(["scale=smoke"])
    with open_dict(config):
        config.experiment.environment._target_ = "os.system"
        config.experiment.environment._args_ = [f"touch {tmp_path / 'it_ran'}"]
    with pytest.raises(UsageError, match="experiment.environment._target_=os.system: a configuration here cannot name"):
        plain_config(config)
    with pytest.raises(UsageError, match=r"a\.1\._target_=os.system"):
        refuse_targets({"a": [1, {"_target_": "os.system"}]})
    assert not list(tmp_path.iterdir())


def test_value_of_a_group_override_reaches_the_config() -> None:
    config = plain_config(compose_config(["method.operations.continual_backprop.rate=1e-6", "experiment.steps=7"]))
    assert config["method"]["operations"]["continual_backprop"]["rate"] == 1e-6
    assert config["experiment"]["steps"] == 7


def test_a_mapping_on_the_command_line_reaches_the_config() -> None:
    words = ["experiment=permuted_digits", "experiment.sweep={optimizer.step_size: [0.01, 0.02]}", "seed=3,4"]
    configs = jobs([*words, "-m"])
    assert [config["seed"] for config in configs] == [3, 4]
    assert all(config["experiment"]["sweep"] == {"optimizer.step_size": [0.01, 0.02]} for config in configs)


def test_a_resolved_configuration_is_what_a_run_reads(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--cfg", "job", "--resolve", "method=l2", "seed=3"])
    shown = OmegaConf.create(capsys.readouterr().out)
    assert OmegaConf.to_container(shown) == plain_config(compose_config(["method=l2", "seed=3"]))
    assert shown.method.optimizer.betas == [0.99, 0.99]  # the default of an interpolation
    assert "method=l3: no such method" in ended(capsys, main, "--cfg", "job", "--resolve", "method=l3")


def test_arguments_that_a_method_leaves_to_their_defaults_can_be_set() -> None:
    words = ["experiment=changing_cartpole", "method.operations.continual_backprop.every=10"]
    composed = plain_config(compose_config(words))["method"]["operations"]["continual_backprop"]
    without = plain_config(compose_config(words[:1]))["method"]["operations"]["continual_backprop"]
    assert composed == without | {"every": 10}
    with pytest.raises(UsageError, match="continual_backprop.evry: no such key"):
        compose_config(["method.operations.continual_backprop.evry=10"])
    with pytest.raises(UsageError, match="continual_backprop.every: no such key"):  # whose method has no such operation
        compose_config(["method=l2", "method.operations.continual_backprop.every=10"])
    with pytest.raises(UsageError, match="generator: no such key"):
        compose_config(["method.operations.continual_backprop.generator=1"])


def test_who_never_acts_in_so_short_a_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment=changing_cartpole", "experiment.steps=5_000", "experiment.reset.period=201"]
    configs = [*jobs([*words[:2], "method=continual_backprop"]), *jobs([*words, "method=periodic_reset"])]
    check_builds(configs, pattern=False)
    # ten batches of 500 steps, each four times in five minibatches; continual backprop's units grow up in 100
    said = "method=periodic_reset: reset.period=201, and a run takes 200 gradient steps: it never acts"
    assert capsys.readouterr().err == f"note: {said}\n"
    check_builds(jobs([*words, "method=periodic_reset", "scale=smoke"]), pattern=False)
    assert capsys.readouterr().err == ""


def test_a_constant_that_a_later_version_adds_ends_no_run(tmp_path: Path) -> None:
    new = jobs(["experiment=changing_cartpole", "method=l2", f"folder={tmp_path / 'run'}"])[0]
    constants = {"adam": {"step_size": 1.0}, "reset": {"period": 7}}  # which l2 does not read
    old = new | {"experiment": {key: value for key, value in new["experiment"].items() if key not in constants}}
    Run.open(tmp_path / "run", old, bar_position=None).close()
    Run.check(tmp_path / "run", new, may_change=may_change(new))
    changed = new | {"experiment": new["experiment"] | constants}
    Run.check(tmp_path / "run", changed, may_change=may_change(changed))
    for word in ("experiment.l2.weight_decay=0.5", "experiment.agent.epochs=3"):
        other = jobs(["experiment=changing_cartpole", "method=l2", f"folder={tmp_path / 'run'}", word])[0]
        with pytest.raises(RunError, match="holds a run of another configuration"):
            Run.check(tmp_path / "run", other, may_change=may_change(other))


def test_help_says_in_a_line_what_every_experiment_and_method_is() -> None:
    # in a process of its own: it has to come without the seconds that torch takes
    code = "import sys; from tools.help import help_text; print(help_text()); assert 'torch' not in sys.modules"
    text = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    for name in [
        path.stem for group in ("experiment", "method", "sweep") for path in (ROOT / "configs" / group).glob("*.yaml")
    ]:
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {name} ")]
        assert len(line.split()) > 2
    for word in ("scale: demo", "method=ppo,continual_backprop -m", "tensorboard --logdir"):
        assert word in text
    assert "${" not in text


def test_help_is_what_the_command_prints_with_the_words_beside_it() -> None:
    assert "  data: digits\n" in command("tools.train", "experiment=permuted_digits", "--help", check=True).stdout
    failed = command("tools.train", "experiment=permuted_digit", "--help")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "error: experiment=permuted_digit: no such experiment; did you mean permuted_digits?\n"


def test_a_constant_counts_as_read_if_any_run_of_the_command_reads_it() -> None:
    words = ["method=ppo,continual_backprop", "folder=runs/${method.name}", "-m"]
    configs = jobs([*words, "experiment.replacement.rate=0.001"])
    assert configs[1]["method"]["operations"]["continual_backprop"]["rate"] == 0.001
    with pytest.raises(UsageError, match="experiment.redo.period: nobody would read it, not ppo; leave it out"):
        jobs([*words, "experiment.redo.period=5"])
    jobs(["experiment=permuted_digits", "experiment.redo={threshold: 0.1, period: 5}", "experiment.methods=[redo]"])


def test_glob_chooses_among_the_files_of_a_group() -> None:
    words = [
        "method=glob([l2*,head_*],exclude=[*_l2])",
        "folder=runs/${method.name}",
        "experiment=permuted_digits",
        "-m",
    ]
    names = [config["method"]["name"] for config in jobs(words)]
    assert names == ["head_reset", "head_reset_continual_backprop", "head_reset_shrink_and_perturb", "l2", "l2_init"]


def test_a_pattern_leaves_out_with_a_word_what_does_not_fit() -> None:
    words = ["experiment=changing_cartpole", "scale=smoke", "method=glob([linear,l2,compare*])", "-m"]
    configs = jobs(words)
    with pytest.warns(
        UserWarning, match=r"method=linear is left out: network.hidden=\[\]: an agent needs a hidden layer"
    ):
        assert [config["method"]["name"] for config in check_builds(configs, pattern=True)] == ["l2"]
    with pytest.raises(UsageError, match="an agent needs a hidden layer"):
        check_builds(configs, pattern=False)


def test_long_values_are_cut_in_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(ended(capsys, main, "scale=smoke", f"experiment.network.activation={'x' * 5000}")) < 400


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's with an experiment and a method, named in another alphabet."""
    folder = tmp_path / "eigenes für mich"
    files = {
        "method/stronger.yaml": ["# L2, ten times as strong. Mine.", "defaults: [l2, _self_]", "name: stronger"],
        "experiment/swing.yaml": ["# Swing up.", "defaults: [gymnasium, _self_]", "name: swing", "steps: 4096"],
        "experiment/at/swing/smoke.yaml": ["# @package experiment", "steps: 2048"],
    }
    files["method/stronger.yaml"].append("optimizer: {weight_decay: 0.01}")
    files["experiment/swing.yaml"].append("environment: {id: Pendulum-v1}")
    for name, lines in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("flag", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]])
def test_methods_and_experiments_come_from_a_folder_of_the_users(mine: Path, flag: list[str]) -> None:
    words = [word.format(mine) for word in flag]
    first, second = jobs([*words, "experiment=swing", "method=l2,stronger", "scale=smoke", "-m"])
    assert first["experiment"]["environment"]["id"] == "Pendulum-v1"
    assert [one["method"]["optimizer"]["weight_decay"] for one in (first, second)] == [0.001, 0.01]
    assert (second["experiment"]["steps"], second["folder"]) == (2048, "runs/swing/smoke/stronger/seed_0")
    (at_demo,) = jobs([*words, "experiment=swing"])
    assert at_demo["experiment"]["steps"] == 4096


def test_streams_compare_a_method_of_the_users(mine: Path) -> None:
    words = ["--config-dir", str(mine), "experiment=permuted_digits", "experiment.methods=[backprop,stronger]"]
    (config,) = jobs([*words, "method.of.stronger.optimizer.weight_decay=0.5"])
    assert list(config["method"]["of"]) == ["backprop", "stronger"]
    assert config["method"]["of"]["stronger"]["optimizer"]["weight_decay"] == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir"], "--config-dir: one folder is needed, as --config-dir mine"),
        (["-cd=a", "--config-dir=b"], "there is no a/method/ or a/experiment/ with files *.yaml"),
        (["--config-dir", "MINE", "method=strong"], "method=strong: no such method; did you mean stronger?"),
    ],
)
def test_a_wrong_folder_of_the_users_is_refused(mine: Path, words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        jobs([word.replace("MINE", str(mine)) for word in words])


def test_a_file_of_the_users_never_stands_behind_the_projects(mine: Path) -> None:
    (mine / "method/l2.yaml").write_text("name: l2\n")
    with pytest.raises(UsageError, match="has a method l2 of its own: give yours another name"):
        jobs(["--config-dir", str(mine)])


def test_help_lists_what_is_the_users(mine: Path) -> None:
    told = help_text(["--config-dir", str(mine), "experiment=swing"])
    assert re.search(r"Experiments with agents.*  swing  +Swing up\n.*Experiments with streams", told, re.DOTALL)
    assert re.search(r"  stronger  +L2, ten times as strong\n", told)
    assert "id: Pendulum-v1" in told


def test_each_setting_of_a_sweep_has_a_folder_of_its_own() -> None:
    words = ["experiment=gymnasium", "method=ppo", "seed=0,1", "-m"]
    given = ["experiment.optimizer.step_size=1e-4,1e-3", "experiment.network.hidden=[8,8],[16]"]
    assert [config["folder"] for config in jobs([*words[:2], "seed=1", *given, "-m"])] == [
        f"runs/CartPole-v1/demo/ppo/step_size={step_size},hidden={hidden}/seed_1"
        for step_size in ("0.0001", "0.001")
        for hidden in ("8,8", "16")
    ]
    assert [config["folder"] for config in jobs(words)] == [f"runs/CartPole-v1/demo/ppo/seed_{seed}" for seed in (0, 1)]
    # a folder that was given is the user's to tell apart
    with pytest.raises(UsageError, match="two of the 2 runs would write to runs/x"):
        jobs([*words[:2], given[0], "folder=runs/x", "-m"])


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("runs/größe/ü", "runs/größe/ü"),
        ("runs/ppo/step_size=0.001,hidden=8,8/seed_0", "runs/ppo/step_size=0.001,hidden=8,8/seed_0"),
        ("~/runs", os.path.expanduser("~/runs")),
        ("'it is'", "it is"),
    ],
)
def test_paths_are_read_as_they_are(given: str, folder: str) -> None:
    assert [config["folder"] for config in jobs([f"folder={given}"])] == [folder]


def test_what_was_mistyped_is_answered_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was loaded')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "LC_ALL": "C"}
    done = command("tools.train", "experimant=x", "hydra/launcher=pool", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (2, "error: experimant: no such key; did you mean experiment?\n")


def test_runs_that_differ_in_their_seed_alone_are_as_if_composed_for_themselves() -> None:
    words = ["method=ppo,l2", "experiment.agent.epochs=2,3"]
    together = jobs([*words, "seed=range(3)", "-m"])
    alone = [jobs([*words, f"seed={seed}", "-m"]) for seed in range(3)]
    assert [[one for one in together if one["seed"] == seed] for seed in range(3)] == alone
    assert [one["folder"] for one in jobs(["seed=7,8", "-m", "folder=mine/${seed}"])] == ["mine/7", "mine/8"]


def test_runs_that_differ_in_their_seed_alone_are_built_once_and_every_seed_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built, build = [], train.build
    monkeypatch.setattr(train, "build", lambda config: built.append(config) or build(config))
    words = ["experiment=changing_cartpole", "scale=smoke", "method=ppo,l2", "-m"]
    configs = jobs([*words, "seed=range(3)"])
    assert check_builds(configs, pattern=False) == configs
    assert [(config["method"]["name"], config["seed"]) for config in built] == [("ppo", 0), ("l2", 0)]
    for seed in ("-1", "true", "x"):
        with pytest.raises(UsageError, match=f"seed={seed}: a whole number"):
            check_builds(jobs([*words, f"seed=3,{seed}"]), pattern=False)
