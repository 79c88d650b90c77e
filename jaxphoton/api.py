"""`Model`: the models as an object with one method a skill."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxphoton import distributed, loading, platform
from jaxphoton.config import EngineConfig
from jaxphoton.config.quantization import Quantization
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.engine import Engine
from jaxphoton.engine.executables import Executables
from jaxphoton.engine.followers import follow
from jaxphoton.image.decode import MAX_PIXELS
from jaxphoton.image.ways import Resize
from jaxphoton.layers.mesh import Split
from jaxphoton.models.registry import family_for
from jaxphoton.processes.peers import Follower
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.requests.adapter_folder import AdapterFolder
from jaxphoton.requests.adapters import AdapterRegistry, GivenAdapters, check_room, named, with_room
from jaxphoton.requests.errors import EngineStartError, ModelClosed, fault_of, forget_frames
from jaxphoton.requests.images import EncodedImage, image_rules
from jaxphoton.requests.methods import SkillMethods
from jaxphoton.requests.session import Session
from jaxphoton.weights.adapters import load_adapter

if TYPE_CHECKING:
    from jaxphoton.engine.engine import Submission
    from jaxphoton.engine.metrics import LaunchMetrics
    from jaxphoton.image.prepare import Prepared
    from jaxphoton.models.adapters import Adapter


class Model(SkillMethods):
    """A model ready to be asked: a Moondream, a JoyCaption, a SmolVLM2. What its family has not it refuses by name.

    An image may be a path, bytes, a binary file, a PIL image, an array [height, width, 3] (uint8, or float from 0
    to 1) or an EncodedImage; a list of images gives a list of results. `settings` is a mapping with any of
    temperature, top_p, max_tokens, max_objects, seed; unless it says otherwise texts are sampled as the model's
    `family.defaults` say (Moondream's at temperature 0.2 and top_p 0.9), boxes and points are greedy. Texts also
    take "stop" (a text or up to 4, in front of the first of which the answer ends) and "logprobs" (true:
    `Result.logprobs` tells the tokens). Programs are compiled at the first request, or by `start`; the logger
    "jaxphoton.compiling" says which, at level INFO. A context manager; `close` frees the device.

    Requests raise, besides what their methods say:
      EngineStartError: the engine cannot start (at the first request): too little memory, no such kernel, a device or
        a compiler that fails.
      ModelClosed: the model was closed, before the request or under it.
      QueueFull: too many requests wait. Lists and batches wait themselves instead.
      EngineError: the engine has failed; what the three above are, too.
      ValueError: also where the model, or the adapter asked for, has diverged: it computes NaN.

    Attributes:
      path: the files that it was loaded from; None where it was made of parameters.
      quantize: how they were quantized, as it was given.
      split: how the parameters lie on a mesh; None without one.
      adapters: those that may be asked for, by name.
    """

    path: Path | None = None
    quantize: str | Quantization | None = None

    def __init__(
        self,
        params: Any,
        config: Any,
        tokenizer: Tokenizer,
        *,
        engine: EngineConfig | None = None,
        clamp_boxes: bool = False,
        max_pixels: int = MAX_PIXELS,
        background: tuple[int, int, int] = (255, 255, 255),
        allow_truncated: bool = False,
        fast_decode: bool = False,
        resize: Resize | None = None,
        adapters: GivenAdapters = None,
        adapter_folder: str | os.PathLike[str] | None = None,
        mesh: str | Mesh | Split | None = None,
        mesh_rules: loading.MeshRules = None,
    ):
        """See `from_pretrained`; `config` are the settings of a family (`Family.config`). Parameters have the order of
        the network (of `jaxphoton.functional`) and lie anywhere, also with a mesh; with a `Split` instead of one they
        have its order and lie so already."""
        if mesh_rules is not None and (mesh is None or isinstance(mesh, Split)):
            raise ValueError(loading.NO_MESH)
        if mesh is None and not all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params)):
            raise ValueError(loading.SPLIT)
        if engine is not None:
            loading.check_engine(engine)
        self._image_rules = image_rules(max_pixels, background, allow_truncated, fast_decode, resize)
        self.config, self.tokenizer = config, tokenizer
        self.family = family_for(config)
        if mesh is not None and not isinstance(mesh, Split):
            mesh = loading.split_for(self.family, mesh, mesh_rules)
            params = mesh.placed(params, loading.specs_of(self.family, params))
        self.split = mesh
        self._params: Any = params
        device = next(iter(jax.tree.leaves(params)[0].devices()))
        self._engine_config = engine or platform.default_engine(device, self.family.max_crops)
        self._clamp_boxes = clamp_boxes
        self._stored: Executables | None = None
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._closed = False
        folder = None if adapter_folder is None else AdapterFolder(adapter_folder)
        self.adapters = AdapterRegistry(partial(load_adapter, family=self.family), folder)
        for name, adapter in named(adapters).items():
            self.load_adapter(name, adapter)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str = "shapes",
        *,
        revision: str | None = None,
        dtype: str | DTypeLike | None = None,
        device: str | platform.Device | None = None,
        sharding: jax.sharding.Sharding | None = None,
        mesh: str | Mesh | None = None,
        mesh_rules: loading.MeshRules = None,
        engine: EngineConfig | None = None,
        quantize: str | Quantization | None = None,
        float8_experts: bool = False,
        coordinates: str = "bins",
        clamp_boxes: bool = False,
        max_pixels: int = MAX_PIXELS,
        background: tuple[int, int, int] = (255, 255, 255),
        allow_truncated: bool = False,
        fast_decode: bool = False,
        resize: Resize | None = None,
        executables: str | os.PathLike[str] | None = None,
        adapters: GivenAdapters = None,
        adapter_folder: str | os.PathLike[str] | None = None,
    ) -> Model:
        """Loads a model.

        Args:
          path_or_id: a folder or file, a Hugging Face id such as "vikhyatk/moondream2", or "shapes", the small
            model shipped with the package.
          revision: branch, tag or commit of a Hugging Face id.
          dtype: "float32" or "bfloat16"; by default bfloat16, on a CPU float32.
          device: "cpu", "gpu", "cuda:1" or a jax.Device.
          sharding: of all parameters, instead of one device; it must keep them whole on every device.
          mesh: for a model that shall lie on several devices, instead of one: "model=2" for the first two,
            "model=2,expert=2" for the first four (experts are shared out over "expert"), or a jax.sharding.Mesh with
            axes of these names. Each device holds its share of heads, MLPs, vocabulary and experts.
          mesh_rules: over which axes of the mesh something is split, {"vocab": ()}, beside `layers.mesh.RULES`.
          engine: how requests are run together; None for what fits the device.
          quantize: "int8", "float8", "int4" or "int4-64": large matrices in few bits, made one by one on their way to
            the device. What a checkpoint stores in few bits is kept so; "none" brings all of it to `dtype`.
          float8_experts: keep the experts of a checkpoint in which they alone are in float8, at half the bytes.
          coordinates: "bins" (a coordinate is bin / bins) or "bins-1" (bin / (bins - 1), Photon's convention).
          clamp_boxes: cut boxes at the picture's border, as Photon does.
          max_pixels: larger pictures are refused from their header, before they are decoded.
          background: RGB colour behind transparent pixels.
          allow_truncated: use what a file cut short still shows instead of failing.
          fast_decode: read large JPEGs at a reduced size; pixels differ by less than one part in 255 on average.
          resize: "exact", by Pillow, the same pixels on every release, or "fast", in a sixth to a ninth of its time, at
            most 2 levels away; None for the fast one, and with a warning the exact one where that cannot be had.
          executables: a folder of programs that `jaxphoton compile` has stored, instead of compiling. They are code:
            use none that you do not trust. `engine` is then by default what they were compiled with.
          adapters: files or folders of adapters (`jaxphoton.weights.adapters`), or adapters themselves, by the names
            under which they are asked for: `model.caption(image, adapter=name)`. Unless `engine` says how many, rows of
            one batch may have 4 different ones; more take turns.
          adapter_folder: of adapters that may be asked for too, as NAME, or as FT_ID@STEP where they are FT_ID/STEP.
            They are read when they are first asked for.

        Raises:
          ExecutablesError: the folder is damaged, or its programs are for another chip, jax, driver or version. Those
            for another model or engine are an EngineStartError when the engine starts.
          WeightsError: the checkpoint, or an adapter, is missing, broken or of another shape, or there is no such
            `quantize`.
          NotADirectoryError: there is no `adapter_folder`.
          ConfigError: its settings cannot be read.
          TokenizerError: its tokenizer cannot be read, or is another model's.
          ValueError: an unknown dtype or device, a sharding that splits parameters, or a `max_pixels`, `background` or
            `resize` that is none, or cannot be had. TypeError, where it is of another type.
          MeshError: a ValueError: the machine has fewer devices than the mesh, or they cannot share the model evenly;
            with the sizes that would do.
          EngineStartError: the device cannot hold them.
        """
        stored = None if executables is None else loading.open_executables(executables, device, sharding, mesh)
        if adapter_folder is not None:
            AdapterFolder(adapter_folder)
        if adapters is not None:
            adapters = loading.read_adapters(path_or_id, revision, float8_experts, adapters)
        loaded = loading.load(
            path_or_id,
            revision,
            dtype,
            device,
            sharding,
            float8_experts,
            mesh=mesh,
            mesh_rules=mesh_rules,
            quantize=quantize,
            coordinates=coordinates,
        )
        model = cls(
            loaded.params,
            loaded.config,
            loaded.tokenizer,
            engine=engine if engine is not None or stored is None else stored.engine,
            clamp_boxes=clamp_boxes,
            max_pixels=max_pixels,
            background=background,
            allow_truncated=allow_truncated,
            fast_decode=fast_decode,
            resize=resize,
            adapters=adapters,
            adapter_folder=adapter_folder,
            mesh=loaded.split,
        )
        model.path, model._stored, model.quantize = loaded.path, stored, quantize
        return model

    @property
    def picture_options(self) -> dict[str, Any]:
        """How pictures are read: the arguments of this name of `from_pretrained`."""
        return {"fast_decode" if name == "fast" else name: value for name, value in self._image_rules.items()}

    @property
    def params(self) -> Any:
        """The parameters.

        Raises:
          ModelClosed: they are gone.
        """
        if self._params is None:
            raise ModelClosed
        return self._params

    @property
    def engine_config(self) -> EngineConfig:
        """How requests are run together; may be set until the engine starts, with the first request.

        Raises (when it is set):
          RuntimeError: the engine has started; it cannot change any more.
        """
        return self._engine_config

    @engine_config.setter
    def engine_config(self, engine: EngineConfig) -> None:
        loading.check_engine(engine)
        with self._lock:
            if self._closed:
                raise ModelClosed
            if self._session is not None:
                raise RuntimeError("the engine has started: engine_config can be set before the first request only")
            self._engine_config = engine

    @property
    def session(self) -> Session:
        """What prepares and submits requests; started with the first of them.

        Raises:
          EngineStartError, ModelClosed: as `start`.
        """
        with self._lock:
            if self._closed:
                raise ModelClosed
            if self._session is None:
                platform.share_interpreter()
                self._session = self._session_on(self._start_engine())
            return self._session

    @property
    def engine(self) -> Engine:
        """The engine that runs the requests; `session` starts it."""
        return self.session.engine

    def observe(
        self,
        launches: Callable[[LaunchMetrics], None] | None = None,
        requests: Callable[[Submission], None] | None = None,
        images: Callable[[Prepared], None] | None = None,
    ) -> ExitStack:
        """Has functions called with each launch, each request that has ended and each image that was prepared, until
        what this returns is closed, or its `with` block is left. Any number may observe at once.

        They are called on the threads on which it happens (the engine's own for launches and requests), so they must
        return quickly. One that raises is logged and not called again.

        Raises:
          EngineStartError, ModelClosed: as `start`.
        """
        handle = self.session.engine.observe(launches, requests)
        handle.push(self.session.images.observe(images))
        return handle

    def start(self) -> None:
        """Compiles the programs and starts the engine now instead of with the first request.

        Raises:
          EngineStartError: it cannot start; the message says why.
          ModelClosed: the model was closed.
        """
        _ = self.session

    def follow(self) -> None:
        """Works for process 0 of several (`jaxphoton.distributed`), which has loaded the same model, until it ends.

        Where that process is lost while this one waits in a launch, this one ends: nothing else would end the launch.

        Raises:
          EngineError: process 0 is lost or has other settings, or a launch failed.
          RuntimeError: this process follows none.
        """
        if not isinstance(peers := distributed.peers(), Follower):
            raise RuntimeError("this process follows none: see jaxphoton.distributed")
        follow(self._programs, peers)

    def load_adapter(self, name: str, adapter: str | os.PathLike[str] | Adapter) -> None:
        """Makes an adapter known by a name, also while requests run; nothing is compiled, and nobody waits for it.

        One that has this name already is replaced; requests that have begun keep theirs.

        Raises:
          WeightsError: it cannot be read, or does not fit the model.
          ValueError, TypeError: the name is none, or the engine has no room for adapters, or for none of this rank.
          ModelClosed: the model was closed.
        """
        found = self.adapters.read(name, adapter)
        with self._lock:
            if self._closed:
                raise ModelClosed
            if self._session is not None or self._engine_config.adapter_slots:
                check_room(name, self.family.network.adapter_rank(found), self._engine_config)
            self.adapters.register(name, found)

    def forget_adapter(self, name: str) -> None:
        """The reverse of `load_adapter`; requests that have begun go on.

        Raises:
          UnknownAdapter: there is none of this name.
        """
        self.adapters.forget(name)

    def encode_image(self, image: Any) -> EncodedImage:
        """Decodes and crops an image once; the result can be asked many times.

        Raises:
          ImageError: the picture cannot be read; the message names it and its fault.
          TypeError: not an image.
        """
        return self.session.images.encode(image)

    def close(self) -> None:
        """Ends the engine and frees the device: requests under way raise ModelClosed, and so do later ones.

        From any thread, and any number of times; while programs are being compiled it waits for that. Parameters that
        somebody else refers to stay.
        """
        with self._lock:
            self._closed = True
            self._params = None
            session = self._session
        if session is not None:
            session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _session_on(self, engine: Engine) -> Session:
        encode = partial(self.tokenizer.encode, most=self.family.max_context)
        skills = self.family.skills(encode, self._clamp_boxes)
        return Session(engine, self.family, self.tokenizer, skills, self._image_rules, self.adapters)

    def _start_engine(self) -> Engine:
        if isinstance(distributed.peers(), Follower):
            raise EngineStartError("this process follows another one, and that one alone is asked")
        try:
            return Engine(self._programs())
        except Exception as error:
            forget_frames(error)
            raise EngineStartError(f"the engine cannot start: {fault_of(error)}") from error

    def _programs(self) -> Programs:
        self._engine_config = with_room(self._engine_config, self.adapters, self.family.network.adapter_rank)
        places = {"split": self.split, "peers": distributed.peers()}
        return Programs(self.params, self.family, self._engine_config, stored=self._stored, **places)


Moondream = Model  # the name from when there was one family
