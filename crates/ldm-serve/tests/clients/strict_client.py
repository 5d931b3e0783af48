"""The strict client sd-backend-client against a running server: python strict_client.py http://127.0.0.1:PORT

The server has the models emoji and second, both the emoji model.
"""

import sys
import time

from PIL import Image
from sd_backend_client import SDBackendError
from sd_backend_client.api.detect import connect_to_backend
from sd_backend_client.api.webui.diffusion_request_body import DiffusionRequestBody

CASES = []
LISTS = ("checkpoints", "vaes", "loras", "hypernetworks", "samplers", "schedulers", "upscalers")


def case(function):
    CASES.append(function)
    return function


def request(**fields):
    made = DiffusionRequestBody(prompt="red heart", width=64, height=64)
    for name, value in {"steps": 4, **fields}.items():
        setattr(made, name, value)
    return made


@case
def lists(backend):
    for name in LISTS:
        getattr(backend, f"list_{name}")()
    for name in ("styles", "scripts", "script_info", "models", "vae", "loras", "latent_upscale_modes", "config"):
        getattr(backend, f"get_{name}")()


@case
def text(backend):
    made = backend.submit_txt2img(request(seed=9, batch_size=2)).wait(timeout=120)
    assert made.seeds == [9, 10] and made.images[0].size == (64, 64)
    other = request(sampler="dpmpp_2m", scheduler="karras", subseed=3, subseed_strength=0.5, sd_model_name="second", n_iter=2)
    made = backend.submit_txt2img(other).wait(timeout=120)
    assert made.raw_info.sd_model_name == "second" and len(made.images) == 2


@case
def images(backend):
    image = backend.submit_txt2img(request(seed=1)).wait(timeout=120).images[0]
    assert len(backend.submit_img2img(request(init_images=[image])).wait(timeout=120).images) == 1
    large, mask = image.resize((200, 160)), Image.new("L", (200, 160))
    mask.paste(255, (60, 60, 90, 90))
    for whole in (True, False):
        filled = request(init_images=[large], mask=mask, inpaint_full_res=not whole)
        backend.submit_inpaint(filled).wait(timeout=120)
    assert backend.submit_upscale(image, 128, 128).wait(timeout=120).images[0].size == (128, 128)


@case
def progress_and_cancel(backend):
    handle = backend.submit_txt2img(request(steps=900))
    for _ in range(400):
        time.sleep(0.05)
        if handle.poll().preview is not None:
            break
    else:
        raise AssertionError("no preview")
    assert handle.cancel()
    try:
        handle.wait(timeout=120)
    except SDBackendError:
        pass


@case
def errors(backend):
    try:
        backend.submit_txt2img(request(sampler="dpm_fast")).wait(timeout=120)
    except SDBackendError as error:
        assert "sampler" in str(error).lower(), error
    else:
        raise AssertionError("an unknown sampler is an error")


def main():
    backend = connect_to_backend(sys.argv[1])
    for each in CASES:
        each(backend)
        print("OK", each.__name__)


main()
