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
import compvis_words
from compvis_table import BOUNDS, Row, relative_l2

TABLE = "diffusion models"
REF = Path(os.environ["LDM_REF"])
LDM, CONFIGS = REF / "latent-diffusion/models/ldm", REF / "latent-diffusion/configs"
STABLE = REF / "stable-diffusion/configs/stable-diffusion/v1-inference.yaml"
OURS = Path(__file__).resolve().parents[2] / "configs"
BATCH, STEPS = 2, 5


@dataclass
class Case:
    """A config, how the model is told what to make, and the size of its latents: never square."""

    name: str
    config: Path
    condition: object
    scale: float = 1.0
    size: tuple = (16, 24)
    # What the reference is built with beside the config's own.
    changes: list = field(default_factory=list)
    # What `ldm` reads, where that is not the reference's file.
    ours: Path = None

    def seed(self):
        """Some models differ in nothing but what they were trained on: here in their weights."""
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
        own("bsr_sr", conditions.small_picture, size=(32, 48)),
        own("inpainting_big", conditions.masked_picture),
        own("layout2img-openimages256", conditions.layout),
        own("semantic_synthesis256", conditions.class_map, size=(32, 48)),
        own("semantic_synthesis512", conditions.class_map, size=(32, 48)),
        own("text2img256", conditions.text, scale=5.0),
        Case("txt2img-1p4B", CONFIGS / "latent-diffusion/txt2img-1p4B-eval.yaml", conditions.text, scale=5.0),
        Case("stable-diffusion v1", STABLE, conditions.text, scale=7.5),
        Case("stable-diffusion v1-inpainting", STABLE, conditions.picture_and_tokens, scale=7.5,
             changes=["model.params.conditioning_key=hybrid", "model.params.unet_config.params.in_channels=9"],
             ours=OURS / "stable-diffusion/v1-inpainting.yaml"),
        # Its averages would take 16 GB beside its weights.
        Case("retrieval 768x768", CONFIGS / "retrieval-augmented-diffusion/768x768.yaml", conditions.neighbours,
             scale=5.0, changes=["model.params.use_ema=False"]),
    ]


def build(case, folder):
    """The reference's model. Its averages are other weights than those beside them, and are what is to be sampled."""
    config = OmegaConf.merge(OmegaConf.load(case.config), OmegaConf.from_dotlist(case.changes))
    path = folder / "reference.yaml"
    OmegaConf.save(config, path)
    model = reference.diffusion(path, case.seed())
    compvis_words.to_cpu(model.cond_stage_model)
    if model.use_ema:
        reference.randomize(model.model, case.seed() + 10)
        model.model_ema = type(model.model_ema)(model.model)
        reference.randomize(model.model, case.seed())
    return model


def effect(model, x, told):
    """How much the network's answer changes when the two samples are told each other's condition."""
    if told.cond is None:
        return None
    t = torch.full((BATCH,), 500)
    own, other = (model.apply_model(x, t, cond) for cond in (told.cond, told.cond.flip(0)))
    changed = relative_l2(other, own)
    assert changed > 10 * BOUNDS["latents"], f"the condition does not matter: {changed}"
    return changed


def compare(case, folder, ours):
    compvis_words.install(ours.tokenizers)
    weights, (height, width) = folder / "model.ckpt", case.size
    # The reference says much; what matters of it is raised.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = build(case, folder)
        reference.save_lightning(model, weights)
        shape = model.channels, height, width
        noise = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(case.seed()))
        told = case.condition(model, case.size)
        sampler, _ = reference.ddim(model)
        with model.ema_scope():
            changed = effect(model, noise, told)
            latents, _ = sampler.sample(
                STEPS, BATCH, shape, conditioning=told.cond, eta=0.0, x_T=noise, verbose=False,
                unconditional_guidance_scale=case.scale, unconditional_conditioning=told.uncond)
    factor, averages = 2**model.num_downs, "averages" if model.use_ema else "weights"
    del model, sampler
    pixels = height * factor, width * factor
    config = case.ours or case.config
    if told.command:
        words = list(told.words)
        if told.texts:
            prompts = folder / "prompts.txt"
            prompts.write_text("\n".join(told.texts))
            words += ["--prompts-from", prompts, "--tokenizer", ours.tokenizers / told.tokenizer]
        got = ours.sample(told.command, words, noise, pixels, STEPS, case.scale, config, weights)
    else:
        got = ours.generate(told.given, noise, STEPS, case.scale, config, weights)
    words = ["×".join(map(str, shape)), told.says, averages, f"{case.scale:g}" if case.scale != 1 else "–",
             f"{changed:.2f}" if changed else "–"]
    return Row(case.name, words, {"latents": relative_l2(got, latents)})
