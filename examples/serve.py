"""Serve an exported classifier: requests that come together are answered in one call.

    python examples/serve.py network.onnx               serve: POST an image to /classify
    python examples/serve.py network.onnx --check 20    ask 20 questions at once, and each alone

The file is one of `hierarch export ... --dynamic batch`, and says how images are made ready. This
needs onnxruntime, pillow, fastapi, uvicorn, and httpx for --check.
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
        told = (json.loads(about[f"hierarch.{key}"]) for key in ("size", "classes", "mean", "std"))
        self.size, self.classes, *norm = told
        self.mean, self.std = (np.array(values, np.float32) for values in norm)

    def prepare(self, data: bytes) -> np.ndarray:
        """The bytes of an image file -> (C, H, W), resized and normed."""
        height, width = self.size
        image = Image.open(io.BytesIO(data)).convert("L" if len(self.mean) == 1 else "RGB")
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        return ((pixels.reshape(height, width, -1) / 255 - self.mean) / self.std).transpose(2, 0, 1)

    def classify(self, images: list[np.ndarray]) -> list[dict[str, float]]:
        """The likeliest classes of each image, with their probabilities."""
        [logits] = self.session.run(None, {"images": np.stack(images)})
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        names = self.classes or [str(i) for i in range(shares.shape[1])]
        return [{names[i]: float(row[i]) for i in row.argsort()[:-6:-1]} for row in shares]


class Batcher:
    """Gathers what is asked within `patience` seconds, and while a call runs, into one call."""

    def __init__(self, run, *, most: int = 32, patience: float = 0.005) -> None:
        self.run, self.most, self.patience = run, most, patience
        self.asked: asyncio.Queue = asyncio.Queue()
        self.calls = 0

    async def ask(self, item):
        answer = asyncio.get_running_loop().create_future()
        await self.asked.put((item, answer))
        return await answer

    async def work(self) -> None:
        """Answer for ever."""
        while True:
            batch = [await self.asked.get()]
            await asyncio.sleep(self.patience)
            while len(batch) < self.most and not self.asked.empty():
                batch.append(self.asked.get_nowait())
            self.calls += 1
            items, futures = zip(*batch, strict=True)
            try:
                answers = await asyncio.to_thread(self.run, list(items))
            except Exception as error:  # those who asked are told, and the next are answered
                [future.set_exception(error) for future in futures if not future.cancelled()]
                continue
            for future, answer in zip(futures, answers, strict=True):
                if not future.cancelled():  # whoever asked may have gone
                    future.set_result(answer)


def make_app(path: str) -> FastAPI:
    classifier = Classifier(path)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        app.state.batcher = Batcher(classifier.classify)
        worker = asyncio.create_task(app.state.batcher.work())
        yield
        worker.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, float]:
        try:
            image = await asyncio.to_thread(classifier.prepare, await request.body())
        except (OSError, Image.DecompressionBombError):
            raise HTTPException(415, "this is no image") from None
        return await app.state.batcher.ask(image)

    return app


async def check(path: str, count: int) -> None:
    """Ask `count` questions at the same time, and each alone, and compare the answers."""
    import httpx

    app = make_app(path)
    files = [io.BytesIO() for _ in range(count)]
    for file, noise in zip(files, np.random.default_rng(0).random((count, 48, 64, 3)), strict=True):
        Image.fromarray((noise * 255).astype(np.uint8)).save(file, "png")
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")
    async with app.router.lifespan_context(app), client:
        posts = [client.post("/classify", content=file.getvalue()) for file in files]
        together = [reply.raise_for_status().json() for reply in await asyncio.gather(*posts)]
        calls = app.state.batcher.calls
        for file, answer in zip(files, together, strict=True):
            alone = (await client.post("/classify", content=file.getvalue())).json()
            assert answer.keys() == alone.keys()
            assert np.allclose([*answer.values()], [*alone.values()], atol=1e-6)
    print(f"{count} answers by {calls} call{'s' * (calls > 1)} of the network, each as alone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="an .onnx file")
    parser.add_argument("--check", type=int, metavar="N", help="ask N questions, and end")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    if options.check:
        asyncio.run(check(options.file, options.check))
    else:
        import uvicorn

        uvicorn.run(make_app(options.file), port=options.port)
