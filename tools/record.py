"""A video of the policy of a run: `python -m tools.record RUN_FOLDER [OTHER_RUN_FOLDER] [--friction 0.1]`.

Two run folders are shown side by side, on the same ground and from the same starting poses. The name of the output says
the format: .mp4 or .gif.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v2 as imageio
from tqdm import tqdm

from continual_agents.agents.evaluation import damage_of_policy
from continual_agents.runs import CheckpointError, Checkpoints, read_checkpoint, read_configuration
from tools.agent import AgentJob, environment_from
from tools.command_line import UsageError, refuse_targets
from tools.figures.folders import method_label, read_folder
from tools.film import Player, pictures
from tools.parser import Parser
from tools.text import visible, visible_everywhere
from tools.train import check_common


class RecordError(ValueError):
    """Nothing to record; the message is all there is to say."""


def player_of(
    folder: Path, *, checkpoint: Path | None = None, friction: float | None = None, seed: int = 0, sample: bool = False
) -> Player:
    """The policy of a run folder in its environment.

    Args:
        folder: a reinforcement learning run.
        checkpoint: one of its checkpoint files; the newest good one when None.
        friction: of the ground, all the time; the last friction of the run when None.
        seed: of the starting poses and of the actions.
        sample: draw actions as in training, instead of the policy's mean (or likeliest) action.

    Raises:
        RecordError: not such a run, or it has no checkpoint.
    """
    config = configuration_of(folder)
    content = checkpoint_of(folder, checkpoint, damage=damage_of_policy)
    job = agent_of(folder, config, content)
    job.close()
    environment, friction = _environment(folder, config["experiment"]["environment"], friction)
    title = f"{method_label(config['method']['name'])}, {content['step']:,} steps"
    return Player(job.learner.networks.policy.eval(), environment, title, friction=friction, seed=seed, sample=sample)


def record(
    folders: Sequence[Path], output: Path, *, seconds: float = 10.0, frames_per_second: int = 30, **player: Any
) -> Path:
    """Write a video of one policy, or of several side by side.

    Args:
        folders: run folders.
        output: a .mp4 or .gif file.
        seconds: length of the video, in the robot's time.
        frames_per_second: pictures per second; the environment makes 60 steps per second.
        player: settings of `player_of`.

    Raises:
        RecordError: a folder that cannot be played, or an output of another kind.
    """
    if not seconds * frames_per_second >= 1:
        raise RecordError(f"--seconds={seconds:g}: too short for a picture, there are {frames_per_second} in a second")
    if output.suffix not in (".mp4", ".gif"):
        raise RecordError(f"{output}: the name must end in .mp4 or .gif")
    players = [player_of(folders[0], **player)]
    # one ground for all of them: the first run's, unless a friction was asked for
    player["friction"] = players[0].friction
    players += [player_of(folder, **player) for folder in folders[1:]]
    output.parent.mkdir(parents=True, exist_ok=True)
    written = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    # sides that are multiples of 2 are enough for the codec; imageio's default of 16 would stretch the picture
    settings: dict[str, Any] = {"fps": frames_per_second, "macro_block_size": 2}
    if output.suffix == ".gif":
        settings = {"duration": 1000 / frames_per_second, "loop": 0}
    try:
        written.unlink(missing_ok=True)
        writer: Any = imageio.get_writer(written, **settings)
        with writer:
            count = int(seconds * frames_per_second)
            scenes = pictures(players, seconds, frames_per_second)
            for picture in tqdm(scenes, total=count, unit="pictures", desc="recording"):
                writer.append_data(picture)
        os.replace(written, output)  # whole, and in the place of a link instead of where it leads
    finally:
        written.unlink(missing_ok=True)
        for one in players:
            one.environment.close()
    return output


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = Parser(prog="python -m tools.record", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="run folders, shown side by side")
    parser.add_argument("--friction", type=float, help="friction of the ground (default: the run's last one)")
    parser.add_argument("--checkpoint", type=Path, help="a file in RUN_FOLDER/checkpoints (default: the newest)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length in the robot's time (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the starting poses (default: 0)")
    parser.add_argument("--sample", action="store_true", help="draw actions as in training instead of the mean action")
    parser.add_argument("--output", type=Path, help="a .mp4 or .gif (default: video.mp4 in the first run folder)")
    given = parser.parse_args(arguments)
    if given.checkpoint and len(given.runs) > 1:
        parser.error("--checkpoint belongs to one run: give a single RUN_FOLDER")
    player = {name: getattr(given, name) for name in ("friction", "checkpoint", "seed", "sample")}
    kinds = (RecordError, CheckpointError, ValueError, gymnasium.error.Error)
    with parser.refusing(*kinds, output=given.output or given.runs[0]):
        made = record(given.runs, given.output or given.runs[0] / "video.mp4", seconds=given.seconds, **player)
    print(visible(str(made)))


def configuration_of(folder: Path, *, kinds: Sequence[str] = ("agent",), named: str | None = None) -> dict[str, Any]:
    """The configuration of a run, which may come from anywhere, so that it must name no code to run.

    Args:
        folder: the run folder.
        kinds: of experiment.
        named: id of an environment that the user names instead of the configuration's; it may name a module.

    Raises:
        RecordError: no run folder, a run of another kind, or a configuration that asks for code.
    """
    if not os.path.lexists(folder / "config.yaml"):
        raise RecordError(f"{folder} is not a run folder: it has no config.yaml")
    config = visible_everywhere(read_configuration(folder / "config.yaml"))
    experiment = config.get("experiment")
    if not isinstance(experiment, dict) or experiment.get("kind") not in kinds:
        raise RecordError(f"{folder} is not a reinforcement learning run: there is nothing to watch")
    try:
        refuse_targets(config)
        environment = experiment.get("environment")
        if named is not None and isinstance(environment, dict):
            environment["id"] = named
            return config
        name = str(environment.get("id")) if isinstance(environment, dict) else ""
        if ":" in name:  # gymnasium imports what stands before the colon
            raise UsageError(f"experiment.environment.id={name} names a module to import: register it and give its id")
    except UsageError as error:
        raise RecordError(f"{folder}/config.yaml: {error}") from error
    return config


def checkpoint_of(folder: Path, path: Path | None, *, damage: Callable[[dict[str, Any]], str | None]) -> dict[str, Any]:
    """A checkpoint of a run: this one, or the newest good one.

    Raises:
        RecordError: there is none, or `damage` says that it is another run's.
    """
    if path is not None:
        given = read_checkpoint(path)
        if problem := damage(given):
            raise RecordError(f"{path} is not the checkpoint of an agent's run: {problem}")
        return given
    if not (folder / "checkpoints").is_dir():
        raise RecordError(f"{folder} has no checkpoint yet: the run saves its first one after a while")
    content = Checkpoints(folder / "checkpoints").load(damage=damage)
    if content is None:
        raise RecordError(f"{folder} has no checkpoint yet: the run saves its first one after a while")
    return content


def agent_of(folder: Path, config: dict[str, Any], content: dict[str, Any]) -> AgentJob:
    """The run's agent as the checkpoint has it, beside one environment; whoever asks closes it.

    Raises:
        RecordError: a configuration that is none, or not the one that the checkpoint is of.
    """
    try:
        check_common(config)
        if not isinstance(config["method"].get("name"), str):
            raise KeyError("method.name")
        if isinstance(config["experiment"]["environment"], dict):
            config["experiment"]["environment"]["count"] = 1  # one is watched, however many it was trained in
        job = AgentJob(config)
    except KeyError as error:
        raise RecordError(f"{folder}/config.yaml has no {error}: it is not the configuration of a run") from error
    except (TypeError, AttributeError, ImportError) as error:
        raise RecordError(f"{folder}/config.yaml cannot be run: {' '.join(str(error).split())}") from error
    try:
        job.learner.load_state_dict(content["state"]["run"]["learner"])
        return job
    except Exception as error:  # whatever a state of another shape leads to
        job.close()
        raise RecordError(f"the checkpoint in {folder} does not fit its config.yaml: they are of two runs") from error


def _environment(folder: Path, settings: dict[str, Any], friction: float | None) -> tuple[Any, float | None]:
    """One environment that can be rendered, and its friction (None where the ground has none)."""
    if settings["friction"] is None:
        if friction is not None:
            raise RecordError(f"{settings['id']} has no friction to set")
        return environment_from({**settings, "count": 1}, render_mode="rgb_array"), None
    if friction is None:
        metrics = read_folder(folder).metrics
        known = metrics["task/friction"].dropna() if "task/friction" in metrics.columns else metrics["step"].iloc[:0]
        if known.empty:
            raise RecordError(f"{folder}/metrics.csv has no task/friction: give --friction")
        friction = float(known.iloc[-1])
    return environment_from({**settings, "count": 1, "friction": friction}, render_mode="rgb_array"), friction


if __name__ == "__main__":
    main()
