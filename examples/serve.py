"""Serve an exported classifier: requests that come together are answered in one call.

python examples/serve.py network.onnx                 on port 8000: POST an image to /classify
python examples/serve.py network.onnx --check 20      no server: ask 20 questions at once, and alone

The network is `hierarch export ... --dynamic batch`. The file says how images are made ready.
"""

import argparse
import asyncio
import io
import json
from contextlib import asynccontextmanager

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request
from PIL import Image


class Classifier:
    """The network of a file, and how it takes images."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        about = self.session.get_modelmeta().custom_metadata_map
        told = {key: json.loads(about[f"hierarch.{key}"]) for key in ("size", "mean", "std")}
        self.size, self.classes = told["size"], json.loads(about["hierarch.classes"])
        self.mean, self.std = (np.array(told[key], np.float32) for key in ("mean", "std"))

    def prepare(self, data: bytes) -> np.ndarray:
        """The bytes of an image file -> (C, H, W), resized and normed."""
        height, width = self.size
        mode = "L" if len(self.mean) == 1 else "RGB"
        image = Image.open(io.BytesIO(data)).convert(mode).resize((width, height), Image.BICUBIC)
        pixels = np.asarray(image, np.float32).reshape(height, width, -1) / 255
        return ((pixels - self.mean) / self.std).transpose(2, 0, 1)

    def classify(self, images: list[np.ndarray]) -> np.ndarray:
        """(B) images -> (B, classes) probabilities."""
        [logits] = self.session.run(None, {"images": np.stack(images)})
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)

    def answer(self, probabilities: np.ndarray, top: int = 5) -> dict[str, float]:
        """The likeliest classes, with their probabilities."""
        best = probabilities.argsort()[::-1][:top]
        return {self.classes[i] if self.classes else str(i): float(probabilities[i]) for i in best}


class Batcher:
    """Gathers images while the network is busy, and for `patience` seconds, into one call."""

    def __init__(self, run, *, most: int = 32, patience: float = 0.005) -> None:
        self.run, self.most, self.patience = run, most, patience
        self.waiting: asyncio.Queue = asyncio.Queue()
        self.batches: list[int] = []

    async def ask(self, image: np.ndarray) -> np.ndarray:
        answer = asyncio.get_running_loop().create_future()
        await self.waiting.put((image, answer))
        return await answer

    async def work(self) -> None:
        """Answer for ever."""
        while True:
            asked = [await self.waiting.get()]
            await asyncio.sleep(self.patience)
            while len(asked) < self.most and not self.waiting.empty():
                asked.append(self.waiting.get_nowait())
            self.batches.append(len(asked))
            try:
                answers = await asyncio.to_thread(self.run, [image for image, _ in asked])
            except Exception as error:  # those who asked are told, and the next are answered
                answers = [error] * len(asked)
            for (_, future), answer in zip(asked, answers, strict=True):
                if future.cancelled():  # whoever asked has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)


def make_app(path: str) -> FastAPI:
    classifier = Classifier(path)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        app.state.batcher = Batcher(classifier.run if hasattr(classifier, "run") else classifier.classify)
        worker = asyncio.create_task(app.state.batcher.work())
        yield
        worker.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, float]:
        try:
            image = await asyncio.to_thread(classifier.prepare, await request.body())
        except OSError:
            raise HTTPException(415, "this is no image") from None
        return classifier.answer(await app.state.batcher.ask(image))

    return app
