"""A plain server over transformers' generate, one request at a time, to compare with.

python scripts/bench/serve_transformers.py FOLDER [--port 8000] [--threads 2]
POST /v1/completions reads prompt, max_tokens, temperature and top_p, and streams. It has no JAX.
"""

import argparse
import asyncio
import json

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from transformers import AsyncTextIteratorStreamer, AutoModelForCausalLM, AutoTokenizer


def make_app(folder: str) -> Starlette:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    turn = asyncio.Lock()

    def generate(inputs, streamer, max_tokens=16, temperature=1.0, top_p=1.0, **_) -> int:
        settings = {"do_sample": True, "temperature": temperature, "top_p": top_p}
        try:
            with torch.inference_mode():  # generate keeps keys and values by default
                ids = model.generate(
                    **inputs, **settings, max_new_tokens=max_tokens, streamer=streamer
                )
        finally:
            streamer.end()  # a failed request must not wait for text
        return ids.shape[1] - inputs["input_ids"].shape[1]

    async def events(prompt, **fields):
        async with turn:
            inputs = tokenizer(prompt, return_tensors="pt")
            streamer = AsyncTextIteratorStreamer(tokenizer, skip_prompt=True)
            work = asyncio.create_task(asyncio.to_thread(generate, inputs, streamer, **fields))
            async for text in streamer:
                yield event({"index": 0, "text": text, "finish_reason": None})
            last = {"index": 0, "text": "", "finish_reason": "length"}
            yield event(last, usage={"completion_tokens": await work})

    def event(choice, **more) -> str:
        return f"data: {json.dumps({'choices': [choice], **more})}\n\n"

    async def completions(request):
        return StreamingResponse(events(**await request.json()), media_type="text/event-stream")

    posted = Route("/v1/completions", completions, methods=["POST"])
    return Starlette(routes=[posted, Route("/health", lambda _: Response())])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", help="what scripts/export.py --format hf wrote")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch (default: 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    uvicorn.run(make_app(args.folder), port=args.port, log_level="warning")
