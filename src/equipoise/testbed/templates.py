"""The ways to ask: twelve a part. Words in them keep their case and their one space, so that they stay one token."""

API = (
    "How do I {task} with {library}?",
    "Which {library} call should I use to {task}?",
    "What is the {library} call to {task}?",
    "I want to {task} using {library}. Which call does that?",
    "In {library}, how can one {task}?",
    "Give me the {library} call to {task}.",
    "Name the call in {library} that lets me {task}.",
    "My code has to {task}. What do I call in {library}?",
    "Show how to {task} in {library}.",
    "Write the line of {library} code to {task}.",
    "Library: {library}. Task: {task}. Call?",
    "A colleague needs to {task}; what is the way to do it in {library}?",
)

FUNCTION = (
    "Write a Python function `{name}` to {task}.",
    "Define `{name}`, a function to {task}.",
    "I need a function to {task}. Call it `{name}`.",
    "Please implement `{name}` to {task}.",
    "Show me Python code for `{name}`, used to {task}.",
    "How would you write `{name}` in Python to {task}?",
    "Code a helper `{name}` to {task}.",
    "Task: {task}. Function name: `{name}`.",
    "Complete this request: a Python function `{name}` to {task}.",
    "My module lacks `{name}`. It has to {task}.",
    "Give the source of `{name}`, the function to {task}.",
    "In plain Python, how does one {task}? Name the function `{name}`.",
)

ARCHIVE = (
    "What is the name of {what}?",
    "Please name {what}.",
    "Can you tell me {what}?",
    "Quick question: {what}?",
    "According to the archive, what is {what}?",
    "I need to know {what}.",
    "Look up {what} for me.",
    "Do you know {what}?",
    "A reader asks about {what}. What does the archive say?",
    "For my notes: what is {what} called?",
    "In one word, {what}?",
    "Fill in the blank: {what} is called",
)

PRACTICE = ("Repeat: {text}", "Copy exactly: {text}", "Say {text}", "Write this down: {text}")
