"""Requests of a file in OpenAI's batch form, each asking something of its own. Needs msgspec (extra `serve`).

    result = run_requests("asks.jsonl", "answers.jsonl", errors="failed.jsonl", model="vikhyatk/moondream2")

A line in, `{"custom_id", "method": "POST", "url": "/v1/caption", "body": {...}}`, is a line out, in the same order:
`{"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}`.
"""
