"""Every diffusion model with its conditioner: five DDIM steps from the same noise."""
import contextlib
import io
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import compvis_reference as reference
import torch
from omegaconf import OmegaConf

import compvis_conditions as conditions
import compvis_text
from compvis_table import BOUNDS, Row, relative_l2

TABLE = "diffusion models"
REF = Path(os.environ["LDM_REF"])
LDM, CONFIGS = REF / "latent-diffusion/models/ldm", REF / "latent-diffusion/configs"
STABLE = REF / "stable-diffusion/configs/stable-diffusion/v1-inference.yaml"
OURS = Path(__file__).resolve().parents[3] / "configs"
BATCH, STEPS = 2, 5


@dataclass
class Case:
    """A config, its condition, and the size of its latents: never square."""

    name: str
    config: Path
    condition: object
    scale: float = 1.0
    size: tuple = (16, 24)
    # Overrides of the config for CompVis.
    changes: list = field(default_factory=list)
    # The config for `ldm`, where that is not CompVis' file.
    ours: Path = None

    def seed(self):
        """One per name: some models differ only in their training data, and here in their weights."""
        return zlib.crc32(self.name.encode()) % 1000


def cases():
    def own(name, condition, **more):
        return Case(name, LDM / name / "config.yaml", condition, **more)

    return [
        own("celeba256", conditions.nothing),
        own("ffhq256", conditions.nothing),
        own("lsun_beds256", conditions.nothing),
        own("lsun_churches256", conditions.nothing, size=(16, 32)),
        own("cin256", conditions.classes),
        Case("cin256-v2", CONFIGS / "latent-diffusion/cin256-v2.yaml", conditions.guided_classes, scale=3.0),
        own("bsr_sr", conditions.low_resolution, size=(32, 48)),
        own("inpainting_big", conditions.masked_image),
        own("layout2img-openimages256", conditions.layout),
        own("semantic_synthesis256", conditions.semantic_map, size=(32, 48)),
        own("semantic_synthesis512", conditions.semantic_map, size=(32, 48)),
        own("text2img256", conditions.text, scale=5.0),
        Case("txt2img-1p4B", CONFIGS / "latent-diffusion/txt2img-1p4B-eval.yaml", conditions.text, scale=5.0),
        Case("stable-diffusion v1", STABLE, conditions.text, scale=7.5),
        Case("stable-diffusion v1-inpainting", STABLE, conditions.image_and_tokens, scale=7.5,
             changes=["model.params.conditioning_key=hybrid", "model.params.unet_config.params.in_channels=9"],
             ours=OURS / "models/stable-diffusion/v1-inpainting.yaml"),
        # Its EMA would take another 16 GB.
        Case("retrieval 768x768", CONFIGS / "retrieval-augmented-diffusion/768x768.yaml", conditions.neighbors,
             scale=5.0, changes=["model.params.use_ema=False"]),
    ]


def build(case, folder):
    """CompVis' model. Its EMA differs from its raw weights and is what must be sampled."""
    config = OmegaConf.merge(OmegaConf.load(case.config), OmegaConf.from_dotlist(case.changes))
    path = folder / "reference.yaml"
    OmegaConf.save(config, path)
    model = reference.diffusion(path, case.seed())
    compvis_text.to_cpu(model.cond_stage_model)
    if model.use_ema:
        reference.randomize(model.model, case.seed() + 10)
        model.model_ema = type(model.model_ema)(model.model)
        reference.randomize(model.model, case.seed())
    return model


def effect(model, x, condition):
    """The relative change of the network's output when the two samples swap their conditions."""
    if condition.cond is None:
        return None
    t = torch.full((BATCH,), 500)
    own, other = (model.apply_model(x, t, cond) for cond in (condition.cond, condition.cond.flip(0)))
    changed = relative_l2(other, own)
    assert changed > 10 * BOUNDS["latents"], f"the condition has no effect: {changed}"
    return changed


def compare(case, folder, ours):
    compvis_text.install(ours.tokenizers)
    weights, (height, width) = folder / "model.ckpt", case.size
    # CompVis prints much; errors are raised.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = build(case, folder)
        reference.save_lightning(model, weights)
        shape = model.channels, height, width
        noise = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(case.seed()))
        condition = case.condition(model, case.size)
        sampler, _ = reference.ddim(model)
        with model.ema_scope():
            changed = effect(model, noise, condition)
            latents, _ = sampler.sample(
                STEPS, BATCH, shape, conditioning=condition.cond, eta=0.0, x_T=noise, verbose=False,
                unconditional_guidance_scale=case.scale, unconditional_conditioning=condition.uncond)
    factor, weighted = 2**model.num_downs, "EMA" if model.use_ema else "raw"
    del model, sampler
    pixels = height * factor, width * factor
    config = case.ours or case.config
    if condition.command:
        words = list(condition.arguments)
        if condition.texts:
            prompts = folder / "prompts.txt"
            prompts.write_text("\n".join(condition.texts))
            words += ["--prompts-from", prompts, "--tokenizer", ours.tokenizers / condition.tokenizer]
        got = ours.sample(condition.command, words, noise, pixels, STEPS, case.scale, config, weights)
    else:
        got = ours.generate(condition.given, noise, STEPS, case.scale, config, weights)
    words = ["×".join(map(str, shape)), condition.name, weighted, f"{case.scale:g}" if case.scale != 1 else "–",
             f"{changed:.2f}" if changed else "–"]
    return Row(case.name, words, {"latents": relative_l2(got, latents)})
