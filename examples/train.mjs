// Train a small model from JavaScript: fetch and nothing else. Eight callers share upstream requests.
// Usage: node examples/train.mjs [PROXY_URL] [BASE_MODEL]
const [proxy = "http://localhost:8465", baseModel = "sandbox/tiny-1"] = process.argv.slice(2);

async function call(path, body) {
  const response = await fetch(`${proxy}/v1/${path}`, { method: "POST", body: JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${answer.code}: ${answer.detail}`);
  return answer;
}

const datum = (n) => {
  const tokens = Array.from({ length: 9 }, (_, j) => ((n * 7 + j * 3) % 200) + 2);
  return { tokens: tokens.slice(0, -1), targets: tokens.slice(1) };
};

const { model_id } = await call("models", { base_model: baseModel, rank: 8 });
for (let step = 1; step <= 5; step++) {
  const callers = Array.from({ length: 8 }, (_, n) =>
    call("forward_backward", { model_id, data: [datum(n)] }));
  const answers = await Promise.all(callers);
  await call("optim_step", { model_id, adam_params: { learning_rate: 0.05 } });
  const loss = answers.reduce((sum, answer) => sum + answer.loss, 0);
  const requests = new Set(answers.map((answer) => answer.batch.id)).size;
  console.log(`step ${step} loss ${loss} requests ${requests}`);
}
