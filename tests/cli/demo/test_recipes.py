import json
import shlex

from tinkex_proxy.cli.demo.recipes import recipes

URL = "http://127.0.0.1:8465"


def test_lines_are_for_this_proxy_and_this_model() -> None:
    for purpose, line in recipes(URL, "m:train:0"):
        assert purpose
        assert "\n" not in line
        words = shlex.split(line)
        assert words[0] == "curl"
        assert any(word.startswith(f"{URL}/") for word in words)
        if "-d" in words:
            assert json.loads(words[words.index("-d") + 1])["model_id"] == "m:train:0"


def test_they_train_step_and_sample_in_this_order() -> None:
    """Pasted one after another they are one turn of a training loop."""
    paths = [shlex.split(line)[2].removeprefix(URL) for _, line in recipes(URL, "m")]
    assert paths[:3] == ["/v1/forward_backward", "/v1/optim_step", "/v1/sample"]
