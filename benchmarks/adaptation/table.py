def write(cells):
    return ""
