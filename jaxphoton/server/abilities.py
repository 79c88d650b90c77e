"""What a model can be asked: for clients that offer nothing else."""

from __future__ import annotations

from typing import Any

from jaxphoton.requests.skill import REQUIRED, Skill
from jaxphoton.requests.skills import SKILLS, FamilySkills


def abilities(skills: FamilySkills) -> dict[str, Any]:
    """{"skills": names of those with a route, "reasoning": whether it can think before it answers a question}."""
    names = [skill.name for skill in SKILLS.values() if _has(skills, skill)]
    return {"skills": names, "reasoning": "query" in names and _has(skills, SKILLS["query"], reasoning=True)}


def _has(skills: FamilySkills, skill: Skill, **arguments: Any) -> bool:
    required = {each.name: "text" for each in skill.arguments if each.default is REQUIRED}
    try:
        skills.form(skill.name, required | arguments)
    except (TypeError, ValueError, NotImplementedError):
        return False
    return True
