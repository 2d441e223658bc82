from selfsup_cli.cli.groups import command
def load():
    return command(lambda: (lambda: None), "doctor", "x")
