"""hierarch as models of transformers: by themselves, inside its heads, and in its Trainer."""

from __future__ import annotations

import importlib
import json

import pytest
import torch
from helpers import assert_same, assert_same_to_scale, noise, perturb, tiny, tiny_vit
from PIL import Image
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    DetrConfig,
    DetrForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Trainer,
    TrainingArguments,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    pipeline,
)

import hierarch
from hierarch import needs
from hierarch.errors import MissingPackageError, SpecError
from hierarch.integrations import transformers as integration
from hierarch.integrations.transformers import (
    HierarchBackbone,
    HierarchConfig,
    HierarchForImageClassification,
    HierarchModel,
)
from hierarch.train.images import evaluation

SPEC = tiny(
    input_size=32,
    stages=[{"dim": 8, "depth": 1}, {"dim": 16, "depth": 2}, {"dim": 24, "depth": 1}],
    head={"num_classes": 3},
)
NAMES = {0: "ant", 1: "bee", 2: "cat"}
IMAGES = noise(2, 3, 36, 44)
"""Windows and patches are partial."""


@pytest.fixture(scope="module")
def classifier():
    config = HierarchConfig(SPEC, id2label=NAMES, label2id={v: k for k, v in NAMES.items()})
    return perturb(HierarchForImageClassification(config))


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    """The classifier and its image processor, as saved."""
    path = tmp_path_factory.mktemp("saved")
    classifier.save_pretrained(path)
    classifier.config.image_processor().save_pretrained(path)
    return path


def plain(model):
    """The same network, by hierarch alone."""
    network = hierarch.build(model.network.spec).eval()
    network.load_state_dict(model.network.state_dict())
    return network


# a config


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (SPEC, {"id2label": NAMES}),
        (SPEC, {"num_labels": 2}),
        (SPEC | {"head": {"num_classes": 2}}, {}),
        (SPEC | {"head": None}, {"num_labels": 7, "out_features": ["stem", "stage2"]}),
        (SPEC | {"head": None, "out_indices": [0, 2]}, {}),
        (hierarch.load("swin_tiny"), {"out_indices": (-2, -1)}),
    ],
)
def test_a_config_comes_back_from_json(spec, options, tmp_path):
    config = HierarchConfig(spec, **options)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is HierarchConfig
    assert again.to_json_string() == config.to_json_string()
    assert json.loads((tmp_path / "config.json").read_text())["spec"] == config.spec == again.spec
    assert hierarch.load(again.spec) == config.backbone_spec()
    head = again.backbone_spec().head
    assert head is None or head.num_classes == again.num_labels


def test_outputs_of_a_config_are_the_specs_or_the_last():
    assert HierarchConfig(SPEC).out_features == ["stage3"]
    assert HierarchConfig(SPEC | {"head": None}).out_indices == [1, 2, 3]
    assert HierarchConfig(SPEC | {"head": None, "out_indices": [1]}).out_features == ["stage2"]
    assert HierarchConfig(SPEC, out_indices=[0, 2]).out_features == ["stem", "stage2"]
    with pytest.raises(ValueError, match="stage9"):
        HierarchConfig(SPEC, out_features=["stage9"])


def test_labels_that_change_later_change_the_head(tmp_path):
    config = HierarchConfig(SPEC)
    config.num_labels = 2
    assert HierarchForImageClassification(config).network.spec.head.num_classes == 2
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).num_labels == 2


def test_a_wrong_spec_says_where():
    with pytest.raises(SpecError, match=r"stages\[0\]\.dim"):
        HierarchConfig(SPEC | {"stages": [{"dim": 7, "depth": 1}]})


# outputs


@pytest.mark.parametrize("spec", [SPEC, tiny_vit()], ids=["windows", "extra tokens"])
def test_outputs_are_the_networks(spec):
    classifier = perturb(HierarchForImageClassification(HierarchConfig(spec)))
    network = plain(classifier)
    with torch.no_grad():
        out = classifier(IMAGES, output_hidden_states=True)
        whole, maps = network.forward_intermediates(IMAGES)
        assert torch.equal(classifier(IMAGES).logits, network(IMAGES))
        assert_same(out.logits, network.forward_head(whole))
        stem, *states = out.hidden_states
        assert_same(stem, network.stem(IMAGES).permute(0, 3, 1, 2))
        assert_same(states, maps)
        as_tuple = classifier(IMAGES, output_hidden_states=True, return_dict=False)
    assert_same(as_tuple[0], out.logits)
    assert len(as_tuple) == 2
    assert len(as_tuple[1]) == 1 + len(network.stages)
    assert classifier(IMAGES).hidden_states is None


def test_a_models_map_has_the_grids_tokens_and_its_pooled_output_is_the_class_tokens():
    model = perturb(HierarchModel(HierarchConfig(tiny_vit())))
    network = plain(model)
    with torch.no_grad():
        features = network.forward_features(IMAGES)
        for hidden in (False, True):
            out = model(IMAGES, output_hidden_states=hidden)
            rows = out.last_hidden_state.flatten(2).transpose(1, 2)
            assert_same(rows, features[:, 0, 3:])
            assert_same(out.pooler_output, features[:, 0, :2].mean(1))


def test_a_loss_and_its_gradients(classifier):
    labels = torch.tensor([2, 0])
    out = classifier(IMAGES, labels=labels)
    assert_same(out.loss, torch.nn.functional.cross_entropy(out.logits, labels))
    network = plain(classifier)
    torch.nn.functional.cross_entropy(network(IMAGES), labels).backward()
    found = torch.autograd.grad(out.loss, list(classifier.parameters()))
    assert_same_to_scale(found, [weight.grad for weight in network.parameters()])


def test_hidden_states_are_the_configs_wish_where_the_call_has_none():
    model = HierarchForImageClassification(HierarchConfig(SPEC, output_hidden_states=True))
    assert len(model(IMAGES).hidden_states) == 4
    assert model(IMAGES, output_hidden_states=False).hidden_states is None


def test_a_hidden_state_has_a_gradient(classifier):
    out = classifier(IMAGES, output_hidden_states=True)
    last = out.hidden_states[-1]
    (found,) = torch.autograd.grad(out.logits[:, 0].sum(), last)
    assert found.shape == last.shape
    assert found.abs().sum() > 0


def test_images_of_another_shape_are_refused(classifier):
    with pytest.raises(ValueError, match=r"images should be \(batch, 3, height, width\)"):
        classifier(noise(2, 1, 32, 32))


# saved and read


def test_a_saved_classifier_is_the_same(classifier, folder):
    assert (folder / "model.safetensors").exists()
    again, report = AutoModelForImageClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert type(again) is HierarchForImageClassification
    assert not any(report.values())
    assert (again.main_input_name, again.input_modalities) == ("pixel_values", "image")
    assert again.config.id2label == NAMES
    with torch.no_grad():
        assert torch.equal(again(IMAGES).logits, classifier(IMAGES).logits)


def test_a_classifier_is_read_as_a_model_and_as_a_backbone(classifier, folder):
    model = AutoModel.from_pretrained(folder)
    backbone, report = HierarchBackbone.from_pretrained(
        folder, out_features=["stage1", "stage3"], output_loading_info=True
    )
    assert {key.split(".", 2)[2] for key in report["missing_keys"]} == {
        f"{i}.norm.{kind}" for i in (0, 2) for kind in ("weight", "bias")
    }
    network = plain(classifier)
    with torch.no_grad():
        out = model(IMAGES)
        features = network.forward_features(IMAGES)
        assert torch.equal(out.last_hidden_state, features.permute(0, 3, 1, 2))
        assert torch.equal(out.pooler_output, network.forward_head(features, pre_logits=True))
        maps = network.forward_intermediates(IMAGES, indices=[0, 2], intermediates_only=True)
        for found, unnormed in zip(backbone(IMAGES).feature_maps, maps, strict=True):
            dim = unnormed.shape[1]  # a norm that is new has a scale of 1
            normed = torch.nn.functional.layer_norm(unnormed.permute(0, 2, 3, 1), [dim])
            assert_same(found, normed.permute(0, 3, 1, 2))


def test_weights_under_hierarchs_own_names_are_read(classifier):
    weights = plain(classifier).state_dict()
    again, report = HierarchForImageClassification.from_pretrained(
        None, config=classifier.config, state_dict=weights, output_loading_info=True
    )
    assert not any(report.values())
    with torch.no_grad():
        assert torch.equal(again(IMAGES).logits, classifier(IMAGES).logits)


def test_stages_that_wait_on_the_disk(classifier, folder, tmp_path):
    options = {"device_map": "auto", "max_memory": {"cpu": 45_000}, "offload_folder": tmp_path}
    again = HierarchForImageClassification.from_pretrained(folder, **options)
    assert again.hf_device_map["network.stem"] == "cpu"
    assert again.hf_device_map["network.stages.2"] == "disk"
    with torch.no_grad():
        assert_same(again(IMAGES).logits, classifier(IMAGES).logits)


@pytest.mark.parametrize("mixer", ["window_attention", "cosine_window_attention", "window_mlp"])
def test_what_is_missing_is_drawn_as_published(mixer, tmp_path):
    fields = {"position_embedding": {"type": "absolute", "grid": [8, 8]}, "layer_scale": 0.5}
    entry = {"type": mixer, "head_dim": 4, "window_size": 4}
    config = HierarchConfig(SPEC | {"mixer": entry} | fields)
    empty = HierarchForImageClassification.from_pretrained(None, config=config, state_dict={})
    assert not any(x.is_meta for x in (*empty.parameters(), *empty.buffers()))
    drawn = hierarch.build(config.backbone_spec())
    tables = dict(drawn.named_buffers())
    assert all(torch.equal(x, tables[name]) for name, x in empty.network.named_buffers())
    for (name, one), other in zip(
        empty.network.named_parameters(), drawn.parameters(), strict=True
    ):
        if other.unique().numel() == 1:  # constant
            assert torch.equal(one, other), name
        else:
            assert 0.5 < one.std() / other.std() < 2, name


def test_another_number_of_labels_draws_the_classifier_anew(classifier, folder):
    again = HierarchForImageClassification.from_pretrained(
        folder, num_labels=40, ignore_mismatched_sizes=True
    )
    assert again(IMAGES).logits.shape == (2, 40)
    fc = again.network.head.fc
    assert 0.01 < fc.weight.std() < 0.03
    assert fc.bias.abs().max() == 0
    was = dict(classifier.network.named_parameters())
    for name, weight in again.network.named_parameters():
        assert name.startswith("head.fc") or torch.equal(weight, was[name])


# backbones


@pytest.mark.parametrize(
    ("spec", "stages", "channels"),
    [(SPEC, ["stage2", "stage3"], [8, 16, 24]), (tiny_vit(), ["stage1"], [8, 8])],
    ids=["windows", "extra tokens"],
)
def test_a_backbones_maps_are_the_networks(spec, stages, channels):
    config = HierarchConfig(spec, out_features=["stem", *stages])
    backbone = perturb(AutoBackbone.from_config(config))
    assert backbone.channels == channels
    network = plain(backbone)
    with torch.no_grad():
        out = backbone(IMAGES, output_hidden_states=True)
        assert torch.equal(out.feature_maps[0], out.hidden_states[0])
        assert_same(out.feature_maps[1:], network(IMAGES))
        again = backbone(IMAGES)
    assert again.hidden_states is None
    assert_same(again.feature_maps, out.feature_maps)


def test_stages_after_the_last_output_are_not_built():
    backbone = AutoBackbone.from_config(HierarchConfig(SPEC, out_indices=[1, 2]))
    assert backbone.channels == [8, 16]
    assert len(backbone.network.stages) == 2
    assert [m.shape[1:] for m in backbone(IMAGES).feature_maps] == [(8, 9, 11), (16, 5, 6)]
    backbone.out_indices = [1]
    with pytest.raises(ValueError, match=r"build the network again for out_features=\['stage1'\]"):
        backbone(IMAGES)


def small(backbone, **options):
    return {"backbone_config": backbone, "num_labels": 3, **options}


def segmenter(backbone):
    config = UperNetConfig(
        **small(backbone, hidden_size=8, auxiliary_channels=8, auxiliary_in_channels=12)
    )
    return UperNetForSemanticSegmentation(config), {"labels": torch.zeros(2, 64, 64).long()}


def masks(backbone):
    sides = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32)
    sides |= {"encoder_feedforward_dim": 16, "dim_feedforward": 16, "num_attention_heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 4, "train_num_points": 8}
    model = Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(**small(backbone, **sides, **layers))
    )
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1
    targets = {"mask_labels": [mask, mask], "class_labels": [torch.tensor([1])] * 2}
    return model, targets


def detector(backbone):
    sides = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 4}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 1}
    config = DetrConfig(**small(backbone, **sides, **heads, **layers, attn_implementation="sdpa"))
    model = DetrForObjectDetection(config)
    box = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}
    return model, {"labels": [box, box]}


FOUR = SPEC | {"head": None, "stages": [{"dim": dim, "depth": 1} for dim in (4, 8, 12, 16)]}


@pytest.mark.parametrize("make", [segmenter, masks, detector])
def test_a_backbone_of_a_head(make, tmp_path):
    model, targets = make(HierarchConfig(FOUR))
    (backbone,) = (m for m in model.modules() if isinstance(m, HierarchBackbone))
    images = noise(2, 3, 64, 64)
    model.train()(images, **targets).loss.backward()
    used = {name for name, weight in backbone.named_parameters() if weight.grad is not None}
    norms = {f"network.stages.{i}.norm.{kind}" for i in range(3) for kind in ("weight", "bias")}
    unused = norms if make is detector else set()  # it takes the last map alone
    assert used == {name for name, _ in backbone.named_parameters()} - unused

    perturb(model).save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert again.config.backbone_config.spec == backbone.config.spec
    with torch.no_grad():
        found, wanted = again(images).to_tuple(), model(images).to_tuple()
    assert torch.equal(found[0], wanted[0])


# training


renamed = pytest.mark.filterwarnings("ignore:`gradient_checkpointing.* is deprecated")
"""transformers 5.24 has a new name, activation checkpointing, and warns of the old one."""


@renamed
def test_gradient_checkpointing_recomputes_blocks(classifier):
    model = HierarchForImageClassification(classifier.config).train()
    model.load_state_dict(classifier.state_dict())
    labels = torch.tensor([0, 1])
    kept = torch.autograd.grad(model(IMAGES, labels=labels).loss, list(model.parameters()))
    model.gradient_checkpointing_enable()
    assert model.gradient_checkpointing
    assert {stage.grad_checkpointing for stage in model.network.stages} == {"block"}
    again = torch.autograd.grad(model(IMAGES, labels=labels).loss, list(model.parameters()))
    assert_same_to_scale(again, kept)
    model.gradient_checkpointing_disable()
    assert not model.gradient_checkpointing
    assert {stage.grad_checkpointing for stage in model.network.stages} == {None}


@renamed
def test_gradient_checkpointing_of_a_head_reaches_its_backbone():
    model, _ = detector(HierarchConfig(FOUR))
    model.gradient_checkpointing_enable()
    (backbone,) = (m for m in model.modules() if isinstance(m, HierarchBackbone))
    assert {stage.grad_checkpointing for stage in backbone.network.stages} == {"block"}


@renamed
def test_the_trainer_trains_saves_and_goes_on(tmp_path):
    labels = [0, 1, 2, 0, 1, 2, 0, 1]
    examples = [
        {"pixel_values": noise(3, 32, 32, seed=i) + label, "labels": label}
        for i, label in enumerate(labels)
    ]

    def trainer(steps):
        torch.manual_seed(0)
        arguments = TrainingArguments(
            str(tmp_path),
            max_steps=steps,
            save_steps=2,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=4,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            gradient_checkpointing=True,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        model = HierarchForImageClassification(HierarchConfig(SPEC))
        return Trainer(model, arguments, train_dataset=examples, eval_dataset=examples)

    first = trainer(4)
    before = first.evaluate()["eval_loss"]
    first.train()
    assert first.evaluate()["eval_loss"] < before
    saved = AutoModelForImageClassification.from_pretrained(tmp_path / "checkpoint-4")
    assert_same(saved.state_dict(), first.model.state_dict())
    resumed = trainer(4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same(resumed.model.state_dict(), first.model.state_dict())


# images


def photo(height, width):
    pixels = noise(4, 5, 3).mul(60).add(128).clamp(0, 255).byte().numpy()
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("size", "mode"), [(28, "RGB"), ((28, 56), "RGB"), (28, "L")])
def test_images_are_made_ready_as_in_a_recipes_evaluation(size, mode):
    stem = {"type": "patch_embed", "in_chans": len(mode)}
    processor = HierarchConfig(SPEC | {"input_size": size, "stem": stem}).image_processor()
    recipe = hierarch.load_recipe({"epochs": 1})
    both = (size, size) if isinstance(size, int) else size
    # crops by whole pixels: by half of one more, torchvision rounds to even, transformers down
    for image in (photo(50, 50).convert(mode), photo(64, 96).convert(mode)):
        found = processor(image, return_tensors="pt")["pixel_values"][0]
        wanted = evaluation(recipe, both, len(mode))(image)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1.01 / 255 / 0.224)


def test_an_image_processor_and_a_pipeline_are_read_from_the_folder(classifier, folder):
    processor = AutoImageProcessor.from_pretrained(folder)
    assert processor.to_dict() == classifier.config.image_processor().to_dict()
    image = photo(40, 60)
    found = pipeline("image-classification", model=str(folder), device="cpu")(image)
    with torch.no_grad():
        wanted = classifier(**processor(image, return_tensors="pt")).logits.softmax(-1)[0]
    assert {entry["label"] for entry in found} == {*NAMES.values()}
    for entry in found:
        assert entry["score"] == pytest.approx(wanted[classifier.config.label2id[entry["label"]]])


def test_without_transformers_the_message_is_one_line(monkeypatch):
    here = needs.find_spec
    monkeypatch.setattr(needs, "find_spec", lambda x: None if x == "transformers" else here(x))
    with pytest.raises(MissingPackageError) as error:
        importlib.reload(integration)
    command = "pip install 'hierarch-vision[transformers]'"
    assert str(error.value) == f"this needs the package transformers: {command}"
