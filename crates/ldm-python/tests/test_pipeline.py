"""Images: those of the command, and the arguments."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ldm
import pytest
from PIL import Image, ImageChops


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and ImageChops.difference(a.convert("RGB"), b.convert("RGB")).getbbox() is None


def test_pixels_are_those_of_the_command(pipe: ldm.Pipeline, command: str, tmp_path: Path) -> None:
    words = [command, "txt2img", "red heart", "--seed=3", "--steps=4", "-n2", "-q", "--out", str(tmp_path / "shell")]
    subprocess.run(words, check=True)
    output = pipe("red heart", seed=3, num_inference_steps=4, num_images_per_prompt=2)
    assert output.seeds == [3, 4]
    files = output.save(tmp_path / "python")
    for index, image in enumerate(output.images):
        shell = tmp_path / "shell" / f"{index:05}.png"
        assert same(Image.open(shell), image)
        assert "Seed: " + str(3 + index) in output.parameters[index]
    assert Image.open(files[0]).info["parameters"] == output.parameters[0]
    with pytest.raises(FileExistsError):
        output.save(tmp_path / "python")


def test_prompts_have_the_images_of_single_calls(pipe: ldm.Pipeline) -> None:
    both = pipe(["fire", "sun"], negative_prompt=["", "moon"], seed=5, num_inference_steps=2)
    assert both.seeds == [5, 6] and both.nsfw_content_detected == [False, False]
    assert same(both.images[1], pipe("sun", negative_prompt="moon", seed=6, num_inference_steps=2).images[0])
    assert not same(both.images[1], pipe("sun", seed=6, num_inference_steps=2).images[0])


def test_generator_gives_its_initial_seed(pipe: ldm.Pipeline) -> None:
    class Generator:
        def initial_seed(self) -> int:
            return 7

    assert pipe("fire", generator=Generator(), num_inference_steps=1).seeds == [7]
    assert len(set(pipe(["a", "b"], num_inference_steps=1).seeds)) == 2


def test_images_and_masks_of_every_form(pipe: ldm.Pipeline, tmp_path: Path) -> None:
    base = pipe("fire", seed=1, num_inference_steps=4).images[0]
    base.save(tmp_path / "base.png")
    forms: list[Any] = [base, tmp_path / "base.png", str(tmp_path / "base.png"), (tmp_path / "base.png").read_bytes()]
    results = [pipe("sun", image=form, strength=0.5, seed=2, num_inference_steps=4).images[0] for form in forms]
    assert all(same(results[0], result) for result in results[1:])
    assert not same(results[0], base)
    mask = Image.new("L", base.size)
    mask.paste(255, (0, 0, 32, 64))
    filled = pipe("sun", image=base, mask_image=mask, seed=2, num_inference_steps=4).images[0]
    right = (40, 0, 64, 64)
    assert same(filled.crop(right), base.crop(right)) and not same(filled, base)


def test_progress_ends_with_all_steps(pipe: ldm.Pipeline) -> None:
    seen: list[ldm.Progress] = []
    previews: list[Image.Image] = []

    def look(progress: ldm.Progress) -> None:
        seen.append(progress)
        preview = progress.preview()
        if preview is not None:
            previews.append(preview)

    pipe("fire", num_inference_steps=12, num_images_per_prompt=4, callback=look)
    steps = [each.step for each in seen]
    assert steps == sorted(steps) and len(set(steps)) > 2
    assert seen[-1].step == seen[-1].steps == 48
    assert previews and previews[0].width <= 64


def test_exception_of_the_callback_cancels(pipe: ldm.Pipeline) -> None:
    class Enough(Exception):
        pass

    def stop(progress: ldm.Progress) -> None:
        if progress.step > 0:
            raise Enough

    with pytest.raises(Enough):
        # More than a server does for strangers: its limits are not for its only client.
        pipe("fire", num_inference_steps=1000, num_images_per_prompt=2000, callback=stop)
    # A thousand steps would take half a minute.
    thread = threading.Thread(target=lambda: pipe("fire", num_inference_steps=1), daemon=True)
    thread.start()
    thread.join(15)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("arguments", "field", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps", "num_inference_steps: expected 1 to 1000, got 0"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt", "num_images_per_prompt: expected at least 1, got 0"),
        ({"height": 63, "width": 64}, "height", "height: expected a multiple of 16"),
        ({"sampler": "eular"}, "sampler", "got eular"),
        ({"strength": 0.5}, "strength", "strength: expected an initial image"),
        ({"class_labels": 3}, "class_labels", "class_labels: expected either a prompt or classes, got both"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt", "expected one for each of 1 prompts, got 2"),
        ({"image": b"GIF"}, "image", "image: "),
        ({"seed": -1}, "seed", "seed: "),
    ],
)
def test_invalid_arguments(pipe: ldm.Pipeline, arguments: dict[str, object], field: str, message: str) -> None:
    with pytest.raises(ldm.RequestError) as error:
        pipe("fire", **arguments)  # type: ignore[arg-type]
    assert message in str(error.value) and "\n" not in str(error.value)
    assert error.value.field == field
    assert isinstance(error.value, ValueError) and isinstance(error.value, ldm.LdmError)


def test_threads_share_a_pipeline(pipe: ldm.Pipeline) -> None:
    outputs: dict[int, ldm.PipelineOutput] = {}

    def generate(seed: int) -> None:
        outputs[seed] = pipe("fire", seed=seed, num_inference_steps=2)

    threads = [threading.Thread(target=generate, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {seed: output.seeds for seed, output in outputs.items()} == {seed: [seed] for seed in range(4)}


def test_info_describes_the_model(pipe: ldm.Pipeline) -> None:
    assert pipe.info["conditioning"] == "text" and pipe.info["height"] == 64


def test_models_that_do_not_open() -> None:
    with pytest.raises(ldm.LdmError, match="^nowhere/at-all: No such file"):
        ldm.Pipeline("nowhere/at-all")("x")
    with pytest.raises(ldm.LdmError, match="dtype"):
        ldm.Pipeline(dtype="f33")("x")


def test_module_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, ldm; ldm.Pipeline, ldm.train; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
