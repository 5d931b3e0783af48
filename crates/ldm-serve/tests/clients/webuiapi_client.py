"""The client webuiapi against a running server: python webuiapi_client.py http://127.0.0.1:PORT

The server has the models emoji and second, both the emoji model.
"""

import base64
import io
import sys
import threading
import time
from urllib.parse import urlsplit

import webuiapi
from PIL import Image

CASES = []


def case(function):
    CASES.append(function)
    return function


@case
def txt2img(api):
    made = api.txt2img(prompt="red heart", negative_prompt="ugly", seed=1003, width=64, height=64, cfg_scale=7)
    assert made.image.size == (64, 64) and made.info["seed"] == 1003
    assert api.png_info(made.image).info.startswith("red heart\nNegative prompt: ugly\nSteps: 4, ")
    several = api.txt2img(prompt="cat", seed=5, width=64, height=64, batch_size=2, n_iter=2,
                          sampler_name="DPM++ 2M", scheduler="Karras")
    assert len(several.images) == 4 and several.info["all_seeds"] == [5, 6, 7, 8]
    large = api.txt2img(prompt="cat", seed=5, width=64, height=64, enable_hr=True, hr_scale=1.5,
                        hr_second_pass_steps=3, denoising_strength=0.5)
    assert large.image.size == (96, 96)


@case
def img2img(api):
    image = api.txt2img(prompt="red heart", seed=1, width=64, height=64).image.convert("RGB")
    assert api.img2img(images=[image], prompt="cat", denoising_strength=0.6, width=64, height=64).image.size == (64, 64)
    mask = Image.new("RGB", image.size)
    mask.paste((255, 255, 255), (16, 16, 40, 40))
    filled = api.img2img(images=[image], mask_image=mask, inpainting_fill=1, prompt="cat", seed=2, width=64, height=64)
    filled = filled.image.convert("RGB")
    assert filled.tobytes() != image.tobytes()
    assert filled.crop((0, 60, 64, 64)).tobytes() == image.crop((0, 60, 64, 64)).tobytes()


@case
def extras(api):
    image = Image.new("RGB", (64, 64), (200, 30, 30))
    enlarged = api.extra_single_image(image=image, upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=1.5)
    assert enlarged.image.size == (96, 96)
    assert len(api.extra_batch_images(images=[image, image], upscaler_1="Nearest", upscaling_resize=2).images) == 2


@case
def lists_and_options(api):
    for name in ("cmd_flags", "samplers", "schedulers", "sd_vae", "upscalers", "latent_upscale_modes", "loras", "sd_models",
                 "hypernetworks", "face_restorers", "realesrgan_models", "prompt_styles", "scripts", "embeddings", "memory"):
        getattr(api, f"get_{name}")()
    api.set_options(api.get_options())
    api.util_set_model("secon")
    assert api.util_get_current_model() == "second"
    api.util_set_model("emoji")


@case
def progress_and_interrupt(api):
    url = {"host": api.baseurl.split("//")[1].split(":")[0], "port": int(api.baseurl.split(":")[2].split("/")[0])}
    results = []
    other = webuiapi.WebUIApi(**url)
    thread = threading.Thread(target=lambda: results.append(other.txt2img(prompt="cat", width=64, height=64, steps=900)))
    thread.start()
    for _ in range(400):
        time.sleep(0.05)
        progress = api.get_progress()
        if progress["current_image"]:
            Image.open(io.BytesIO(base64.b64decode(progress["current_image"]))).load()
            break
    assert 0 < progress["progress"] < 1 and progress["state"]["job_count"] > 0, progress
    api.interrupt()
    thread.join()
    assert results[0].images == []
    api.util_wait_for_ready(0.2)


@case
def errors(api):
    try:
        api.txt2img(prompt="x", sampler_name="no such")
    except RuntimeError as error:
        assert "404" in str(error) and "Sampler not found" in str(error), error
    else:
        raise AssertionError("an unknown sampler is an error")


def main():
    at = urlsplit(sys.argv[1])
    api = webuiapi.WebUIApi(host=at.hostname, port=at.port, sampler="Euler a", steps=4)
    for each in CASES:
        each(api)
        print("OK", each.__name__)


main()
